# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that change their run state while they move end in the state that they are in."""

from godwit_lab import Failure, check, wait_for
from godwit_runner import Group
from godwit_wire import HOLD, Proxy

# ACPI's PM1a control register where SeaBIOS puts it: sleep, as which of S5 and S3.
POWER_OFF = "o /w 0x604 0x2000"
SLEEP = "o /w 0x604 0x2400"


class RunState(Group):
    """Two hosts and a guest whose user has other things in mind while it moves."""

    weight = 30

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")
        self.boot()

    def boot(self):
        self.vm = self.lab.vm(memory="160M", run=("memtest:24",),
                              args=("-no-shutdown",)).boot(self.a)

    def in_mid_move(self, change):
        """A move to b with @change(monitor) while pages travel; the command, and the monitor."""
        proxy = self.lab.closing(Proxy(self.b.address))
        rule = proxy.at("PAGES", HOLD, 3)
        command = self.vm.migrate(proxy.address, "--json")
        proxy.reached(rule)
        qmp = self.lab.closing(self.vm.qmp())
        change(qmp)
        proxy.release()
        return command, qmp

    def status(self, qmp, status):
        wait_for(f"the guest to be in state {status}",
                 lambda: qmp.call("query-status")["status"] == status)

    def test_paused_by_its_user(self):
        command, qmp = self.in_mid_move(lambda qmp: qmp.call("stop"))
        qmp.close()
        self.vm.paused = True
        command.finish().ok()
        self.vm.arrived(self.b)
        self.vm.rests()
        qmp = self.lab.closing(self.vm.qmp())
        self.status(qmp, "paused")
        qmp.call("cont")
        self.vm.paused = False
        qmp.close()
        self.vm.move(self.a)

    def test_continued_by_its_user(self):
        qmp = self.lab.closing(self.vm.qmp())
        qmp.call("stop")
        qmp.close()
        command, qmp = self.in_mid_move(lambda qmp: qmp.call("cont"))
        qmp.close()
        command.finish().ok()
        self.vm.arrived(self.b)
        self.vm.move(self.a)

    def stays(self, line, status, why):
        """What cannot move stays where it is, and as it is."""
        command, qmp = self.in_mid_move(lambda qmp: (qmp.hmp(line), self.status(qmp, status)))
        command.finish().failed(why)
        self.status(qmp, status)
        wait_for("nothing of it to be at the destination", lambda: "t" not in self.b.list())
        self.a.godwit("migrate", "t", self.b.address).failed(why)
        self.status(qmp, status)
        qmp.close()
        self.vm.stop()
        self.boot()

    def test_powered_off(self):
        """It stays off, here and there, until it is reset."""
        command, qmp = self.in_mid_move(
            lambda qmp: (qmp.hmp(POWER_OFF), self.status(qmp, "shutdown")))
        qmp.close()
        self.vm.paused = True
        command.finish().ok()
        self.vm.arrived(self.b)
        for host in (self.b, self.a):
            if host is not self.vm.host:
                self.vm.move(host)
            check(host.state("t") == "shutdown", f"listed as {host.state('t')}")
            qmp = self.lab.closing(self.vm.qmp())
            self.status(qmp, "shutdown")
            try:
                qmp.call("cont")
            except Failure as e:
                check("Resetting" in str(e), f"cont: {e}")
            else:
                raise Failure("it goes on without a reset")
            qmp.close()
        self.vm.stop()
        self.boot()

    def test_asleep(self):
        self.stays(SLEEP, "suspended", "sleeps")
