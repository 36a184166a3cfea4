const stop = performance.now() + 100;
while (performance.now() < stop);
