GREETING = "greeting @10@"
