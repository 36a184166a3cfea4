"""Loads for a second, then imports late, which prints a line; then waits, as a
server would. The argument is how many megabytes it holds besides."""
import importlib
import signal
import sys

# The first output of all sets the stream up, which is not what is measured.
print("loading", flush=True)
held = [str(n) for n in range(int(sys.argv[1]) * 16000)]
for n in range(10):
    importlib.import_module(f"part{n}")
import late

signal.pause()
