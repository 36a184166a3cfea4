Plugins << "bb @2@"
