# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that QEMU sends by itself, with its device state, is time in which the guest stands still."""

import os
import re
from contextlib import closing

from godwit_lab import check, wait_for
from godwit_runner import Group

MIB = 1 << 20


class Display(Group):
    """A VM of 64 MiB, without an operating system, whose display has 64 MiB too."""

    weight = 15

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")

    def test_heavy(self):
        """What cannot fit is refused with the figures, and the guest was not even stopped."""
        vm = self.lab.vm(memory="64M", kernel=False, machine="pc",
                         args=("-device", "VGA,vgamem_mb=64"))
        self.a.godwit("run", vm.name, "--memory", "64M", "--", *vm.args).ok()
        vm.host = self.a
        vm.settle(self.a)
        vm.lives = lambda: None  # it has nothing to say
        with closing(vm.qmp()) as qmp, open(f"/proc/{vm.pid()}/mem", "r+b", buffering=0) as memory:
            def video():
                """Where the guest sees the display's memory, once the firmware has placed it."""
                return re.search(r"(\w+)-\w+ \(prio \d, ram\): vga.vram\r",
                                 qmp.hmp("info mtree -f"))

            def fill(address, size):
                hva = re.search(r"is 0x(\w+)", qmp.hmp(f"gpa2hva {address:#x}")).group(1)
                memory.seek(int(hva, 16))
                check(memory.write(os.urandom(size)) == size, "memory was not filled")

            wait_for("the firmware", video)
            fill(int(video().group(1), 16), 60 * MIB)
            fill(20 * MIB, 16 * MIB)  # moving it tells the bandwidth
            move = vm.migrate(self.b.address, "--max-bandwidth", "40M", "--compress", "none")
            move.finish().failed("QEMU itself has 60",
                                 "where 300 ms are allowed; use --downtime-limit")
            check(qmp.call("query-status")["status"] == "running", "the guest does not run at a")
            check("STOP" not in [event["event"] for event in qmp.events],
                  "the guest was stopped in vain")
        check(self.b.list() == {}, "something is left at b")
        vm.migrate(self.b.address, "--max-bandwidth", "40M", "--downtime-limit",
                   "60000").finish().ok()
        check(self.b.list()[vm.name]["state"] == "running", "the guest does not run at b")
        vm.host = self.b
        vm.stop()
