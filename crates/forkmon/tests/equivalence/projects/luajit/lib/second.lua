return "second @2@"
