return "first @2@"
