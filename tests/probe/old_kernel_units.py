#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The tracker's unit tests on Debian 12's kernel, where soft-dirty bits exist.

    old_kernel_units.py GUESTS TEST...

Each TEST (a cmocka program) runs in the lab's guest; there its *_soft cases,
which the machine that builds may have to leave out, must run and pass.
"""
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
# pylint: disable=wrong-import-position
import overlay
from guests import BOOT_S, Qemu, check, linux, main, make_guests, need_root_and_qemu

GUESTS, *TESTS = sys.argv[1:]
NAMES = [os.path.basename(test) for test in TESTS]


def script(place):
    """A program for the guest that runs the tests one after the other."""
    path = os.path.join(place.dir, "units")
    with open(path, "w", encoding="ascii") as f:
        f.write("#!/bin/sh\nmkdir -p /tmp /dev/shm\nmount -t tmpfs tmp /tmp\n"
                "mount -t tmpfs shm /dev/shm\n")
        for name in NAMES:
            f.write(f"/bin/{name} 2>&1\necho units: {name} exit $?\n")
        f.write("echo units: done\n")
    os.chmod(path, 0o755)
    return path


def test(place):
    make_guests(GUESTS)
    initrd = os.path.join(place.dir, "initrd.img")
    overlay.make(initrd, os.path.join(GUESTS, "initrd.img"),
                 {test: "/bin/" + name for test, name in zip(TESTS, NAMES)},
                 {script(place): "/bin/units"})
    guest = Qemu(place, "guest", os.path.join(place.ram, "ram"),
                 linux(GUESTS, "units", initrd=initrd, memory="1G"))
    guest.console.wait(rb"units: done\n", seconds=2 * BOOT_S)
    text = guest.console.text()
    print(text)
    for name in NAMES:
        check(f"units: {name} exit 0" in text, f"{name} fails on Linux 6.1")
    check(re.search(r"\[\s+OK \] \w+_soft\b", text), "no soft-dirty case has run")
    check(not re.search(r"SKIPPED \] \w+_soft\b", text), "a soft-dirty case was skipped")


need_root_and_qemu()
main(test)
