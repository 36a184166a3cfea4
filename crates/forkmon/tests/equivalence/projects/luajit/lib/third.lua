return "third @2@"
