local stop = os.clock() + 0.1
while os.clock() < stop do end
