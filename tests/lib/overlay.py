#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Adds this machine's programs to a guest's initramfs.

    overlay.py OUT INITRD [--add HOST[=GUEST]]... PROGRAM[=GUEST]...

OUT is INITRD with a second archive behind it, which Linux unpacks over the
first. It holds each PROGRAM with the shared libraries and the loader that ldd
names, and each file or folder that --add names; symbolic links are followed.
Without =GUEST a path in the guest is that on this machine. What a program opens
by itself must be added, for a QEMU of Debian's with TCG:

    overlay.make(OUT, INITRD, {"build/src/godwitd": "/bin/godwitd",
                               "/usr/bin/qemu-system-x86_64": None},
                 dict.fromkeys(["/usr/share/qemu", "/usr/share/seabios",
                                "/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so"]))
"""
import argparse
import os
import re
import stat
import subprocess
import sys


class Failure(Exception):
    """What was asked for cannot be put into the archive."""


def libraries(program):
    """Paths of the libraries and the loader that @program needs; none if it is static."""
    ldd = subprocess.run(["ldd", program], capture_output=True, text=True,
                         env={**os.environ, "LC_ALL": "C"})
    if "not a dynamic executable" in ldd.stderr + ldd.stdout or "statically" in ldd.stdout:
        return []
    if ldd.returncode or "not found" in ldd.stdout:
        raise Failure(f"ldd {program}: {ldd.stdout}{ldd.stderr}")
    # "libc.so.6 => /lib/.../libc.so.6 (0x...)", "/lib64/ld-linux... (0x...)"; not linux-vdso.
    return re.findall(r"(/\S+) \(0x", ldd.stdout)


class Archive:
    """A cpio archive in the "newc" form, as Linux unpacks it."""

    def __init__(self, out):
        self.out = out
        self.inode = 0
        self.folders = set()

    def _entry(self, name, mode, size):
        self.inode += 1
        name = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name), 0)
        header = b"070701" + b"".join(b"%08x" % f for f in fields) + name
        self.out.write(header + b"\0" * (-len(header) % 4))

    def folder(self, path):
        path = path.strip("/")
        if path and path not in self.folders:
            self.folder(os.path.dirname(path))
            self.folders.add(path)
            self._entry(path, stat.S_IFDIR | 0o755, 0)

    def file(self, host, guest):
        self.folder(os.path.dirname(guest))
        with open(host, "rb") as f:
            info = os.fstat(f.fileno())
            self._entry(guest.strip("/"), stat.S_IFREG | stat.S_IMODE(info.st_mode), info.st_size)
            left = info.st_size
            while left:
                data = f.read(min(left, 1 << 20))
                if not data:
                    raise Failure(f"{host} became shorter")
                self.out.write(data)
                left -= len(data)
            self.out.write(b"\0" * (-info.st_size % 4))

    def tree(self, host, guest):
        if not os.path.isdir(host):
            self.file(host, guest)
            return
        self.folder(guest)
        for name in sorted(os.listdir(host)):
            self.tree(os.path.join(host, name), os.path.join(guest, name))

    def end(self):
        self._entry("TRAILER!!!", 0, 0)


def make(out, initrd, programs, files=None):
    """Write @initrd and the overlay to @out. @programs, @files: {host path: guest path or None}."""
    wanted = {}
    for host, guest in {**programs, **(files or {})}.items():
        wanted[guest or os.path.abspath(host)] = host
    for program in programs:
        for library in libraries(program):
            wanted.setdefault(library, library)
    with open(out + ".new", "wb") as f, open(initrd, "rb") as first:
        while data := first.read(1 << 20):
            f.write(data)
        f.write(b"\0" * (-f.tell() % 4))
        archive = Archive(f)
        for guest, host in sorted(wanted.items()):
            archive.tree(host, guest)
        archive.end()
    os.rename(out + ".new", out)


def pairs(arguments):
    """["HOST=GUEST", "HOST"] as {HOST: GUEST or None}."""
    return {host: guest or None
            for host, _, guest in (argument.partition("=") for argument in arguments)}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("initrd")
    parser.add_argument("--add", action="append", default=[])
    parser.add_argument("program", nargs="+")
    args = parser.parse_args()
    try:
        make(args.out, args.initrd, pairs(args.program), pairs(args.add))
    except (Failure, OSError) as e:
        sys.exit(f"overlay.py: {e}")


if __name__ == "__main__":
    main()
