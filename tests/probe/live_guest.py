#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""F2, F3 and F9 on running guests: tracked and paged from outside, they notice nothing.

    live_guest.py written|accessed|paging tcg|kvm GUESTS TRACK_GUEST PAGE_GUEST
"""
import os
import sys

from guests import (BOOT_S, Failure, Qemu, boot_sector, check, linux, main, make_guests,
                    need_kvm, need_root_and_qemu, tool)

WHAT, ACCEL, GUESTS, TRACK_GUEST, PAGE_GUEST = sys.argv[1:]


def start(place):
    """A guest that is using its memory, and a function that sees that it goes on well."""
    ram = os.path.join(place.ram, "ram")
    if ACCEL == "kvm":
        guest = Qemu(place, "guest", ram, boot_sector(GUESTS))
        guest.console.wait(rb"\.{3}", seconds=BOOT_S)

        def well():
            guest.console.wait(rb"\.{3}", guest.console.end())
            check("!" not in guest.console.text(), f"lost memory: {guest.console.text()[-500:]}")
    else:
        guest = Qemu(place, "guest", ram, linux(GUESTS, "memtest:64"))
        guest.console.wait(rb"memtest: pass 1 ok", seconds=BOOT_S)
        well = guest.expect_memtest
    return guest, well


def test(place):
    make_guests(GUESTS)
    guest, well = start(place)
    try:
        if WHAT == "paging":
            # Of the boot sector's 64 MiB only 16 are used: keep less than that.
            tool(PAGE_GUEST, guest.tool_qmp, "90", "5")
        else:
            tool(TRACK_GUEST, WHAT, guest.tool_qmp, "20")
    except Failure as e:
        raise Failure(f"{e}; the guest's console ends:\n{guest.console.text()[-1500:]}") from e
    well()


need_root_and_qemu()
if ACCEL == "kvm":
    need_kvm()
main(test)
