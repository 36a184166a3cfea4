"""Threads that read and compute side by side, a queue between them, a process pool's
worth of children with pipes, and a total that each run adds to."""

import os
import queue
import signal
import subprocess
import sys
import threading

print("begin @10@", flush=True)


def work(rounds):
    x = 1
    for i in range(rounds):
        x = (x * 1103515245 + i) % 2147483648
    return x


def number(text):
    parts = text.split("@")
    return int(parts[1]) % 1000003 if len(parts) > 1 and parts[1].isdigit() else 0


def read(name):
    try:
        with open(name) as file:
            return file.read()
    except FileNotFoundError:
        return ""


with open("total.txt", "a+") as file:
    file.seek(0)
    before = file.read()
    file.write("started\n")

jobs, results = queue.Queue(), {}


def worker():
    while (name := jobs.get()) is not None:
        results[name] = number(read(os.path.join("inputs", name))) + 0 * work(20000)
        jobs.task_done()


threads = [threading.Thread(target=worker) for _ in range(3)]
for thread in threads:
    thread.start()
for name in sorted(os.listdir("inputs")):
    jobs.put(name)
jobs.join()
print("results", sorted(results.items()), flush=True)
first = read("between.txt")
print("between", first.strip(), work(80000), flush=True)
for name in sorted(os.listdir("inputs")):
    jobs.put(name)
jobs.join()
for _ in threads:
    jobs.put(None)
for thread in threads:
    thread.join()

sort = subprocess.Popen(["sort", "-r"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
cat = subprocess.run(["cat", "child.txt"], stdout=subprocess.PIPE, text=True)
out, _ = sort.communicate("".join(f"{n}\n" for n in sorted(results)) + cat.stdout)
print("sorted", out.split(), cat.returncode, work(80000), flush=True)
os.makedirs("out", exist_ok=False)
with open("out/all.txt", "w") as file:
    file.write(f"{before}{sum(results.values())}\n")
last = number(read("last.txt"))
with open("total.txt", "a") as file:
    file.write(f"{last}\n")
print("on standard error", last, file=sys.stderr)
print("last", last, flush=True)
if last % 5 == 4:
    os.kill(os.getpid(), signal.SIGTERM)
sys.exit(last % 3)
