return { text = "greeting @10@" }
