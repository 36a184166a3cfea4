Plugins << "aa @1@"
