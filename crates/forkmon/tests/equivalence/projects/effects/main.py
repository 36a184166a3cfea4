"""Everything that can be done to what was there before: folders that are moved, removed
and replaced, modes, times, attributes, exchanged names, holes, sockets and FIFOs."""

import ctypes
import os
import shutil
import socket
import sys

LIBC = ctypes.CDLL(None, use_errno=True)


def work(rounds):
    x = 1
    for i in range(rounds):
        x = (x * 1103515245 + i) % 2147483648
    return x


def number(name):
    try:
        with open(name) as file:
            parts = file.read().split("@")
    except FileNotFoundError:
        return -1
    return int(parts[1]) % 1000003 if len(parts) > 1 and parts[1].isdigit() else 0


def step(name):
    print(name, number(f"steps/{name}.txt"), work(60000), flush=True)


step("begin")
os.chmod("kept.dat", 0o600)
step("mode")
os.utime("kept.dat", (1, 1))
step("times")
shutil.rmtree("old")
step("removed")
with open("tree/inner.dat", "a") as file:
    file.write("one more\n")
os.rename("tree", "moved")
os.mkdir("tree")
step("moved")
with open("tree/inner.dat", "w") as file:
    file.write("another\n")
if LIBC.renameat2(-100, b"moved/inner.dat", -100, b"tree/inner.dat", 2) != 0:
    print("not exchanged", flush=True)
step("exchanged")
if hasattr(os, "setxattr"):
    try:
        os.setxattr("kept.dat", "user.mark", b"%d" % number("steps/begin.txt"))
        print(os.listxattr("kept.dat"), flush=True)
    except OSError:
        print("no attributes", flush=True)
step("attributes")
with open("sparse.bin", "r+b") as file:
    file.seek(100)
    file.write(b"x" * 10)
    os.ftruncate(file.fileno(), 20000)
    os.posix_fallocate(file.fileno(), 0, 30000)
step("sparse")
os.remove("link")
os.symlink("moved", "link")
os.link("link/inner.dat", "hard.txt")
step("links")
with socket.socket(socket.AF_UNIX) as server:
    server.bind("socket")
os.mkfifo("fifo", 0o640)
step("names")
os.truncate("kept.dat", 5)
os.chmod("moved", 0o700)
os.chmod("tree", 0o1777)
step("cut")
os.rename("moved/inner.dat", "kept.dat")
os.remove("fifo")
step("replaced")
try:
    os.rmdir("moved")
except OSError as error:
    print(error.errno, flush=True)
fd = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o640)
os.write(fd, b"nameless\n")
LIBC.linkat(-100, b"/proc/self/fd/%d" % fd, -100, b"named.txt", 0x400)
os.close(fd)
step("named")
os.mkdir("build.tmp")
for name in ("a", "b"):
    with open(f"build.tmp/{name}", "w") as file:
        print(name, number("steps/named.txt"), file=file)
step("built")
os.rename("build.tmp", "build")
with open("build/a", "a") as file:
    print("published", file=file)
step("published")
LIBC.renameat2(-100, b"build", -100, b"tree", 2)
os.rename("tree/b", "build/c")
try:
    os.link("build/c", "missing/c")
except FileNotFoundError as error:
    print(error.errno, flush=True)
step("built again")
last = number("last.txt")
print("last", last, flush=True)
sys.exit(last % 4)
