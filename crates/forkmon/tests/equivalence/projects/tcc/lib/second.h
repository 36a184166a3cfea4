#define SECOND "second @30@"
