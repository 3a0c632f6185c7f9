# SPDX-License-Identifier: GPL-2.0-or-later
"""
The link between the hosts goes silent, at every point of a migration.

A cut link tells nobody: packets vanish. So that it is cut for both ends at an
exact message, a proxy stands in the middle, with a link to either side, and
both links are cut while it holds the message:

    godwitd a ---- link x ---- proxy ---- link y ---- godwitd b
"""

import threading
import time

from godwit_lab import check, wait_for
from godwit_runner import Group
from godwit_wire import DROP, Proxy

MIDDLE_A = "192.168.77.2:7400"  # where a finds the proxy
MIDDLE_B = "192.168.77.1:7400"  # where b does


class Link(Group):
    """Two hosts far apart."""

    weight = 60
    grace = 20  # the far end finds out by itself

    def setup(self):
        self.x, self.y = self.lab.network(), self.lab.network()
        self.a = self.lab.host("a", address="192.168.77.1:7373", namespace=self.x.namespace("a"))
        self.b = self.lab.host("b", address="192.168.77.2:7373", namespace=self.y.namespace("b"))
        self.vm = self.lab.vm().boot(self.a)

    def cut(self, *_):
        self.x.cut()
        self.y.cut()

    def mend(self):
        self.x.mend()
        self.y.mend()

    def proxy(self):
        return self.lab.closing(Proxy(self.b.address, MIDDLE_A, self.x.namespace("b"),
                                      self.y.namespace("a")))

    def come_back(self):
        """b to a, by the same road."""
        self.lab.close()
        self.lab.closing(Proxy(self.a.address, MIDDLE_B, self.y.namespace("a"),
                               self.x.namespace("b")))
        self.vm.move(self.a, via=MIDDLE_B)

    def cut_at(self, message, nth=1, verdict=None):
        """Migrate; the link is cut at @message. How it ended."""
        def act(_frame):
            self.cut()
            return verdict
        proxy = self.proxy()
        rule = proxy.at(message, act, nth)
        command = self.vm.migrate(MIDDLE_A)
        proxy.reached(rule)
        began = time.monotonic()
        result = command.finish()
        seconds = time.monotonic() - began
        # Five of silence; TCP by itself would take a quarter of an hour.
        check(seconds < 120, f"it took {seconds:.0f} s to notice a dead link")
        proxy.check()
        return result

    def stays(self):
        """The guest runs here while the link is still cut; then b forgets it."""
        self.vm.lives()
        wait_for("the guest to be listed as running", lambda: self.a.state("t") == "running")
        wait_for("b to forget it", lambda: not self.b.list())
        self.mend()


class Cut(Link):
    """Before COMMIT: the guest runs on here."""

    def fails_at(self, message, nth=1):
        self.cut_at(message, nth).failed("has not answered for 5 s", "check the network")
        self.stays()

    def test_before(self):
        self.cut()
        proxy = self.proxy()
        self.vm.migrate(proxy.address).finish().failed("cannot reach", "192.168.77.2:7400")
        self.stays()

    def test_setup(self):
        self.fails_at("READY")

    def test_round(self):
        self.fails_at("PAGES", 10)

    def test_barrier(self):
        self.fails_at("ROUND_DONE")

    def test_device(self):
        self.fails_at("DEVICE")

    def test_loaded(self):
        self.cut_at("LOADED", 1).failed("was not loaded within 2300 ms", "the network")
        self.stays()

    def test_short(self):
        """A cut of a second breaks nothing."""
        def act(_frame):
            self.cut()
            threading.Timer(1, self.mend).start()
        proxy = self.proxy()
        rule = proxy.at("PAGES", act, 20)
        command = self.vm.migrate(MIDDLE_A, "--json")
        proxy.reached(rule)
        result = command.finish().ok().json()
        check(result["total-time"] > 1000, "the cut was not felt")
        self.vm.arrived(self.b)
        self.come_back()


class Doubt(Link):
    """After COMMIT: stopped here until it is known where the guest runs."""

    def doubt_at(self, message, verdict=None):
        result = self.cut_at(message, verdict=verdict)
        result.failed("stays stopped here", "godwit recover", "has not answered")
        self.vm.rests()
        check(self.a.state("t") == "in-doubt", f"listed as {self.a.state('t')}")
        check(self.a.status("t")["status"] == "failed", "status")

    def runs_here(self, *options):
        result = self.a.godwit("recover", "t", *options).ok()
        check(result.out == "t: it runs here\n", f"{result}")
        self.vm.lives()

    def runs_there(self, *options):
        result = self.a.godwit("recover", "t", *options).ok()
        check("it runs at the destination" in result.out, f"{result}")
        self.vm.arrived(self.b)

    def test_commit_lost(self):
        """The destination never got COMMIT, and says so as soon as it can be asked."""
        self.doubt_at("COMMIT", DROP)
        self.a.godwit("recover", "t").failed("cannot be asked", "--resume", "--discard",
                                             "cannot reach")
        self.vm.rests()
        self.mend()
        self.runs_here()

    def test_running_lost(self):
        """The guest runs there already."""
        self.doubt_at("RUNNING")
        self.mend()
        self.runs_there()
        self.come_back()

    def test_resume(self):
        """Somebody looked there, and says that it does not run."""
        self.doubt_at("COMMIT", DROP)
        wait_for("b to forget it", lambda: not self.b.list())
        self.a.godwit("recover", "t", "--resume").failed("says nothing of the guest", "--confirm")
        self.vm.rests()
        self.runs_here("--resume", "--confirm")
        self.mend()

    def test_discard(self):
        """Somebody looked there, and says that it runs."""
        self.doubt_at("RUNNING")
        wait_for("it to run there", lambda: self.b.state("t") == "running")
        self.a.godwit("recover", "t", "--discard").failed("says nothing of the guest", "--confirm")
        self.runs_there("--discard", "--confirm")
        self.mend()
        self.come_back()

    def test_source_restarts(self):
        """The doubt outlives godwitd."""
        self.doubt_at("RUNNING")
        self.a.kill()
        self.a.start()
        check(self.a.state("t") == "in-doubt", f"listed as {self.a.state('t')}")
        self.mend()
        self.runs_there()
        self.come_back()
