# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that is stopped to be moved goes on here in time, and is moved by a later switchover."""

from godwit_lab import check, wait_for
from godwit_runner import Group
from godwit_wire import DROP, Proxy


class Again(Group):
    """A link that stands still while the device state is under way."""

    weight = 20

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")
        self.vm = self.lab.vm(memory="160M", run=("memtest:24",)).boot(self.a)

    def stalls_at(self, name):
        """Nothing goes on at that message before the guest does."""
        qmp = self.lab.closing(self.vm.qmp())
        proxy = self.lab.closing(Proxy(self.b.address))

        def until_it_runs(_frame):
            check(not qmp.call("query-status")["running"], "the guest was not stopped")
            wait_for("the guest to run on", lambda: qmp.call("query-status")["running"])

        rule = proxy.at(name, until_it_runs)
        command = self.vm.migrate(proxy.address, "--json", "--downtime-limit", "1000")
        proxy.reached(rule)
        result = command.finish().ok().json()
        check(result["godwit"]["switchover"]["taken-back"] >= 1, f"{result['godwit']}")
        qmp.close()
        self.vm.arrived(self.b)
        self.vm.move(self.a)

    def test_device(self):
        self.stalls_at("DEVICE")

    def test_held(self):
        """The device state is there, and the answer is late."""
        self.stalls_at("HELD")

    def test_not_loaded(self):
        """Past the point where it can be taken back, it ends, and the guest runs on."""
        proxy = self.lab.closing(Proxy(self.b.address))
        proxy.at("LOADED", DROP)
        self.vm.migrate(proxy.address).finish().failed(
            "was not loaded within 2300 ms", "use --downtime-limit 900")
        self.vm.lives()
        wait_for("b to forget it", lambda: not self.b.list())
        self.vm.move(self.b)
        self.vm.move(self.a)
