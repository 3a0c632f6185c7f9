# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that moves on and on, as guests do: no leg stands still for what the last ones left.

A short form of bench's journey; how long a client hears nothing is that one's to say.
"""

from godwit_lab import check
from godwit_runner import Group

LEGS = 4
# 50 MiB are written all the time; what is never touched again comes to each host without
# an entry in a page table, and is what a walk would have to look at.
LOAD = ("memtest:8", "wset:50:8:25", "fill:100")


class Journey(Group):
    weight = 25

    def setup(self):
        self.a, self.b = self.lab.host("a"), self.lab.host("b")

    def test_legs(self):
        """
        A host to which it came with its memory in a file is left as quickly as the first.

        Of all legs after the first the quickest final scan counts: a walk of memory
        is in each of them, what else a busy machine does is not.
        """
        vm = self.lab.vm(memory="256M", run=LOAD).boot(self.a)
        vm.wait_line("fill: filled")
        scans = []
        for leg in range(LEGS):
            result = vm.move(self.a if vm.host is self.b else self.b)
            switchover = result["godwit"]["switchover"]
            check(result["godwit"]["verified"], f"leg {leg + 1} was not verified")
            scans.append(switchover["final-pages-ms"])
        print(f"final pages: {', '.join(f'{ms:.1f}' for ms in scans)} ms")
        check(min(scans[1:]) <= 3 * max(scans[0], 50.0),
              f"the final pages of {LEGS} legs took {scans} ms")
        vm.stop()
