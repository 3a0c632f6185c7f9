# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations that somebody ends, in every state and by every means."""

import os
import signal

from godwit_lab import check, wait_for
from godwit_runner import Group
from godwit_wire import HOLD, Proxy


class Held(Group):
    """Two hosts, a guest, and a proxy that holds a migration at a message."""

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")
        self.vm = self.make_vm().boot(self.a)

    def make_vm(self):
        return self.lab.vm(memory="160M", run=("memtest:24",))

    def hold(self, name, nth=1, where=None, options=()):
        """A migration that has just come to that message: (command, proxy)."""
        proxy = self.lab.closing(Proxy(self.b.address))
        rule = proxy.at(name, HOLD, nth, where)
        command = self.vm.migrate(proxy.address, *options)
        proxy.reached(rule)
        return command, proxy

    def state(self, *states):
        """The migration is in one of these states."""
        now = self.a.status("t")["status"]
        check(now in states, f"state {now}, expected {' or '.join(states)}")

    def end(self, command, means):
        if means == "cancel":
            self.a.godwit("cancel", "t").ok()
        else:
            command.signal(means)

    def cancelled(self, command, proxy, means):
        """End the migration; the guest must run on here."""
        self.end(command, means)
        command.finish().failed("cancelled", "paused" if self.vm.paused else "runs on here")
        self.vm.lives()
        status = self.a.status("t")
        check(status["status"] == "cancelled", f"status {status}")
        check("cancelled" in status["error-desc"], f"status {status}")
        proxy.release()
        if not self.vm.paused:
            wait_for("the guest to be listed as running", lambda: self.a.state("t") == "running")


class Cancel(Held):
    """In each state that a message can hold."""

    weight = 30

    def test_setup_before_definition(self):
        command, proxy = self.hold("DEFINE")
        self.state("setup")
        self.cancelled(command, proxy, signal.SIGINT)

    def test_setup_after_definition(self):
        command, proxy = self.hold("READY")
        self.state("setup")
        check(self.a.state("t") == "migrating", f"listed as {self.a.state('t')}")
        check(self.b.state("t") == "incoming", f"there as {self.b.state('t')}")
        self.cancelled(command, proxy, "cancel")

    def test_active_interrupt(self):
        command, proxy = self.hold("PAGES", 3)
        self.state("active")
        self.cancelled(command, proxy, signal.SIGINT)

    def test_active_terminate(self):
        command, proxy = self.hold("PAGES", 20)
        self.state("active")
        self.cancelled(command, proxy, signal.SIGTERM)

    def test_active_cancel(self):
        command, proxy = self.hold("PAGES", 1)
        self.state("active")
        self.cancelled(command, proxy, "cancel")

    def test_active_paced(self):
        """While the bandwidth limit lets it sleep."""
        command, proxy = self.hold("PAGES", 2, options=["--max-bandwidth", "1M"])
        self.state("active")
        self.cancelled(command, proxy, "cancel")

    def test_barrier(self):
        command, proxy = self.hold("ROUND_DONE")
        self.state("active")
        self.cancelled(command, proxy, signal.SIGTERM)

    def test_pre_switchover(self):
        """In the last round: the guest is stopped, and its last pages are on the way."""
        proxy = self.lab.closing(Proxy(self.b.address))
        qmp = self.lab.closing(self.vm.qmp())
        # Whichever round is the last: it goes while the guest stands still.
        last = proxy.at("PAGES", HOLD, where=lambda frame: not qmp.call("query-status")["running"])
        command = self.vm.migrate(proxy.address, "--streams", "1", "--downtime-limit", "60000")
        proxy.reached(last)
        # Where all of them fit into the connection, the source waits in the state after it.
        self.state("pre-switchover", "device")
        self.vm.rests()
        self.cancelled(command, proxy, "cancel")

    def test_verification(self):
        command, proxy = self.hold("VERIFIED")
        self.state("device")
        self.cancelled(command, proxy, "cancel")

    def test_device(self):
        command, proxy = self.hold("LOADED", options=["--downtime-limit", "60000"])
        self.state("device")
        self.vm.rests()
        self.cancelled(command, proxy, signal.SIGINT)

    def test_too_late(self):
        """After COMMIT nothing ends it: the guest runs there."""
        command, proxy = self.hold("RUNNING")
        self.end(command, signal.SIGINT)
        self.a.godwit("cancel", "t").failed("too late")
        proxy.release()
        command.finish().ok()
        self.vm.arrived(self.b)
        self.vm.move(self.a)

    def test_at_the_destination(self):
        """The destination's user may end it too."""
        command, proxy = self.hold("PAGES", 5)
        self.b.godwit("cancel", "t").ok()
        proxy.release()
        command.finish().failed("cancelled on host 'b'")
        check(self.a.status("t")["status"] == "failed", "status")
        self.vm.lives()

    def test_client_is_killed(self):
        """Nobody ended it: it goes on without the client."""
        command, proxy = self.hold("PAGES")
        command.signal(signal.SIGKILL)
        command.finish()
        proxy.release()
        wait_for("the guest to leave", lambda: not os.path.exists(self.a.dir("t")))
        self.vm.arrived(self.b)
        check(self.a.status("t")["status"] == "completed", "status")
        self.vm.move(self.a)

    def test_others_meanwhile(self):
        """What else is asked of a migrating VM is refused, and changes nothing."""
        command, proxy = self.hold("PAGES", 2)
        for words in (["migrate", "t", self.b.address], ["stop", "t"], ["recover", "t"],
                      ["attach", "t", "--qmp", os.path.join(self.a.dir("t"), "user.qmp")],
                      ["run", "t", "--memory", "64M", "--", "qemu-system-x86_64"]):
            self.a.godwit(*words).failed("'t'", "busy", "under way")
        for words in (["stop", "t"], ["migrate", "t", self.a.address]):
            self.b.godwit(*words).failed("'t'", "busy", "under way")
        check(self.a.state("t") == "migrating", "not listed as migrating")
        proxy.release()
        command.finish().ok()
        self.vm.arrived(self.b)
        self.vm.move(self.a)

    def test_paused(self):
        """A paused guest stays stopped, and can be moved again once it has run."""
        qmp = self.lab.closing(self.vm.qmp())
        qmp.call("stop")
        self.vm.paused = True
        command, proxy = self.hold("LOADED")
        self.end(command, "cancel")
        # QEMU calls it so: it has saved its state.
        command.finish().failed("cancelled", "the guest is here, and as it was: p")
        proxy.release()
        self.vm.rests()
        # QEMU calls it "postmigrate": it has saved its state.
        check(self.a.state("t") in ("paused", "postmigrate"), f"listed as {self.a.state('t')}")
        qmp.call("cont")
        self.vm.paused = False
        self.vm.lives()
        qmp.close()
        self.vm.move(self.b)
        self.vm.move(self.a)


class Quiesce(Held):
    """While the guest is stopped for a quiesced scan, which a slow disk draws out."""

    weight = 10

    def make_vm(self):
        disk = "driver=null-co,node-name=slow,size=1073741824,latency-ns=400000000,cache.direct=on"
        return self.lab.vm(memory="160M", run=("memtest:8", "dd:if=/dev/vda:of=/dev/null"),
                           args=["-blockdev", disk, "-device", "virtio-blk-pci,drive=slow"])

    def test_quiesce(self):
        qmp = self.lab.closing(self.vm.qmp())
        for means in ("cancel", signal.SIGINT, signal.SIGTERM):
            proxy = self.lab.closing(Proxy(self.b.address))
            command = self.vm.migrate(proxy.address)
            qmp.wait_event("STOP")
            self.cancelled(command, proxy, means)
            qmp.wait_event("RESUME")

    def test_moves(self):
        result = self.vm.move(self.b)
        check(result["godwit"]["quiesce-ms"] > 0, "not quiesced")
