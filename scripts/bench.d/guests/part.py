import time

stop = time.monotonic() + 0.1
while time.monotonic() < stop:
    pass
