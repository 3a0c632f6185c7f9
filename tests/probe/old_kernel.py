#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""F4: on Debian 12's kernel, in a TCG guest, Godwit's other tracker works.

    old_kernel.py GUESTS FACTS

Boots the lab's guest with FACTS (facts.c) and its libraries added to the
initramfs; FACTS --all runs there and tells on the console. That kernel must
lack F2, and have F1, F4, F8 and F9: F4's probe is the soft-dirty tracker itself.
"""
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
# pylint: disable=wrong-import-position
import overlay
from guests import BOOT_S, Qemu, check, linux, main, make_guests, need_root_and_qemu

GUESTS, FACTS = sys.argv[1:]
EXPECTED = {"F1": "ok", "F2": "missing", "F4": "ok", "F8": "ok", "F9": "ok"}


def test(place):
    make_guests(GUESTS)
    initrd = os.path.join(place.dir, "initrd.img")
    overlay.make(initrd, os.path.join(GUESTS, "initrd.img"), {FACTS: "/bin/facts"})
    guest = Qemu(place, "guest", os.path.join(place.ram, "ram"),
                 linux(GUESTS, "facts:--all", initrd=initrd))
    guest.console.wait(rb"godwit-probe: done\n", seconds=2 * BOOT_S)
    said = re.findall(r"^godwit-probe: (.*)$", guest.console.text(), re.M)
    print("\n".join(said))
    check(said[0].startswith("kernel 6.1."), f"the guest runs {said[0]}, which is not Debian 12's")
    verdicts = dict(line.split()[:2] for line in said[1:-1])
    for fact, verdict in EXPECTED.items():
        check(verdicts.get(fact) == verdict, f"{fact} is {verdicts.get(fact)}, not {verdict}")


need_root_and_qemu()
main(test)
