print("early hook @1@")
