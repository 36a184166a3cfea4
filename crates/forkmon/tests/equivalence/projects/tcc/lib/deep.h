#define DEEP "deep @21@"
