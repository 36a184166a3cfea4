"""Modules with cached byte code, JSON, a listed folder, an optional module; folders,
links, exclusive files, modes, temporary files, and an exception at times."""

import json
import os
import sys

sys.path.insert(0, ".")
print("begin @10@", flush=True)


def work(rounds):
    x = 1
    for i in range(rounds):
        x = (x * 1103515245 + i) % 2147483648
    return x


def number(text):
    digits = "".join(c for c in text.split("@")[1] if c.isdigit()) if "@" in text else ""
    return int(digits or 0)


with open("counter.txt", "r+") as file:
    count = int("".join(c for c in file.read() if c in "0123456789") or 0) % 1000003
    file.seek(0)
    file.write(f"{count + 1}\n")
    file.truncate()

from shapes import circle
print(circle.NAME, work(80000))
from shapes import square
print(square.NAME, square.area(3), work(80000))

try:
    import settings_local
    print(settings_local.GREETING)
except ImportError:
    print("no local settings")

with open("config.json") as file:
    config = json.load(file)
print("config", config["title"], work(80000))

os.mkdir("build")
os.close(os.open("build/lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
total = 0
for name in sorted(os.listdir("items")):
    with open(os.path.join("items", name)) as file:
        for line in file:
            total += number(line)
    work(50000)
    with open("build/index.txt", "a") as file:
        file.write(f"{name} {total}\n")
print("total", total)

os.symlink("index.txt", "build/current")
os.link("build/index.txt", "build/same.txt")
os.chmod("build/index.txt", 0o640)
with open("build/page.tmp", "w") as file:
    file.write(f"<h1>{config['title']}</h1> {total}\n")
os.replace("build/page.tmp", "build/page.html")
print("template", end=" ")
with open("template.txt") as file:
    text = file.read()
print(len(text), work(80000))
sys.stderr.write("a word on standard error\n")
with open("build/page.html", "a") as file:
    file.write(text)
os.remove("build/lock")
with open("old.txt", "w") as file:
    file.write(f"new contents {total}\n")
if os.path.exists("items/zeta.txt"):
    os.rename("old.txt", "older.txt")
with open("ending.txt") as file:
    last = number(file.read())
if last % 4 == 1:
    raise RuntimeError(f"unlucky {last}")
sys.exit(last % 3)
