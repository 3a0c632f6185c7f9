#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""F4 for real: Godwit moves a VM there and back on Debian 12's kernel.

    old_kernel_move.py GUESTS GODWIT GODWITD

Boots the lab's guest (Linux 6.1, under TCG) with Godwit, QEMU and their libraries
added to the initramfs; in it two godwitd move the boot-sector guest, verified,
tracked by soft-dirty bits because that kernel has nothing else.
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
# pylint: disable=wrong-import-position
import overlay
from guests import BOOT_S, Qemu, check, linux, main, make_guests, need_root_and_qemu

GUESTS, GODWIT, GODWITD = sys.argv[1:]
QEMU = "/usr/bin/qemu-system-x86_64"
# What QEMU opens for a machine without display and network.
FIRMWARE = ["/usr/share/seabios/bios-256k.bin", "/usr/share/seabios/bios.bin",
            "/usr/share/qemu/kvmvapic.bin", "/usr/share/qemu/linuxboot_dma.bin",
            "/usr/share/seabios/vgabios-stdvga.bin"]
MODULES = "/usr/lib/x86_64-linux-gnu/qemu"


def added():
    """The files that QEMU loads by itself, under their own names."""
    files = [f for f in FIRMWARE if os.path.exists(f)]
    if os.path.isdir(MODULES):
        files += [os.path.join(MODULES, m) for m in os.listdir(MODULES) if m.startswith("accel")]
    return files


def test(place):
    make_guests(GUESTS)
    initrd = os.path.join(place.dir, "initrd.img")
    add = dict.fromkeys(added())
    add[os.path.join(HERE, "old_kernel_move.sh")] = "/bin/nested"
    add[os.path.join(GUESTS, "kvm.img")] = "/kvm.img"
    overlay.make(initrd, os.path.join(GUESTS, "initrd.img"),
                 {GODWIT: "/bin/godwit", GODWITD: "/bin/godwitd", QEMU: None}, add)
    guest = Qemu(place, "guest", os.path.join(place.ram, "ram"),
                 linux(GUESTS, "nested", initrd=initrd, memory="1G"))
    guest.console.wait(rb"nested: (done|FAILED.*)\n", seconds=2 * BOOT_S)
    text = guest.console.text()
    print("\n".join(line for line in text.split("\n") if line.startswith("nested:")))
    check("nested: kernel 6.1." in text, "the guest does not run Debian 12's kernel")
    check("nested: done" in text, "the move failed")
    check(text.count(", verified") == 2, "a move was not verified")


need_root_and_qemu()
main(test)
