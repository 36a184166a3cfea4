second="second @30@"
