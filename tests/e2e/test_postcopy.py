# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that goes before its memory, and what becomes of the two on the way."""

import os
import time

from godwit_lab import check, kill, wait_for
from godwit_runner import Group
from godwit_wire import HANG_UP, Proxy

# What is still to come then takes seconds, and the guest asks for what it needs.
SLOW = ("--postcopy", "now", "--max-bandwidth", "8M")


class PostCopy(Group):
    """Two hosts, and a guest that checks its memory as it goes."""

    weight = 60

    def setup(self):
        self.a, self.b = self.lab.host("a"), self.lab.host("b")
        self.vm = self.lab.vm(memory="160M", run=("memtest:24",)).boot(self.a)

    def other(self):
        return self.a if self.vm.host is self.b else self.b

    def leave(self, *options, via=None):
        """Begin a move, and wait until the guest runs there: (command, source, destination)."""
        source, to = self.vm.host, self.other()
        command = self.vm.migrate(via or to.address, "--json", *options)
        wait_for("the guest to run there", lambda: source.status("t")["status"] == "postcopy-active")
        self.vm.settle(to)
        return command, source, to

    def whole(self, source, to):
        """All of its memory is there, and it is a VM like any other."""
        wait_for("its memory to be there", lambda: to.state("t") == "running", 60)
        wait_for("nothing of it to be left",
                 lambda: source.state("t") is None and not source.workers(), 20)
        check(not os.path.exists(source.dir("t")), f"the folder of t is still on {source.name}")
        wait_for("its pager to be done", lambda: not to.workers(), 10)
        self.vm.lives()

    def test_now(self):
        """Without a round; to and fro, each time as a VM like any other."""
        for _ in range(3):
            result = self.vm.move(self.other(), "--postcopy", "now")
            check(result["godwit"]["mode"] == "postcopy", result["godwit"]["mode"])
            check(result["ram"]["postcopy-requests"] > 0, "no page was asked for")

    def test_after_rounds(self):
        """What is there already faults, too, and is sent as what has changed in it."""
        result = self.vm.move(self.other(), "--postcopy", "auto", "--postcopy-after", "1",
                              "--downtime-limit", "60")
        check(result["godwit"]["mode"] in ("hybrid", "precopy"), result["godwit"]["mode"])

    def test_writes_faster_than_the_link(self):
        """Rounds never get there; post-copy does."""
        slow = ("--max-bandwidth", "10M", "--downtime-limit", "60", "--compress", "none")
        self.vm.migrate(self.other().address, *slow).finish().failed("faster than it can be moved")
        self.vm.lives()
        result = self.vm.move(self.other(), "--postcopy", "auto", *slow)
        check(result["godwit"]["mode"] == "hybrid", result["godwit"]["mode"])

    def test_status_and_too_late(self):
        command, source, to = self.leave(*SLOW)
        check(source.state("t") == "serving" and to.state("t") == "postcopy",
              f"{source.state('t')}, {to.state('t')}")
        check(source.status("t")["ram"]["remaining"] > 0, source.status("t"))
        check(to.status("t")["ram"]["remaining"] > 0, to.status("t"))
        source.godwit("cancel", "t").failed("too late", "only here")
        answer = source.godwit("recover", "t", "--json").ok().json()
        check(answer["outcome"] == "serving", answer)
        self.vm.lives(1)
        command.finish().ok()
        self.whole(source, to)

    def test_source_worker_is_killed(self):
        command, source, to = self.leave(*SLOW)
        worker = source.worker()
        kill(worker)
        command.finish().failed("another worker")
        self.vm.lives(1)
        self.whole(source, to)

    def test_destination_worker_is_killed(self):
        command, source, to = self.leave(*SLOW)
        worker = to.worker()
        kill(worker)
        begin = time.monotonic()
        wait_for("another pager", lambda: to.workers() not in ([], [worker]))
        check(time.monotonic() - begin < 1, "the guest waited for a pager")
        self.vm.lives(1)
        command.finish().ok()
        self.whole(source, to)

    def test_both_hosts_are_killed(self):
        """Both daemons and both workers; what comes after them goes on."""
        command, source, to = self.leave(*SLOW)
        for host in (source, to):
            worker = host.worker()
            host.kill()
            kill(worker)
        command.finish().failed("godwitd")
        source.start()
        to.start()
        self.whole(source, to)

    def test_daemons_are_restarted(self):
        """The workers live on without them."""
        command, source, to = self.leave(*SLOW)
        source.kill()
        to.kill()
        command.finish().failed("godwitd")
        self.vm.lives(1)
        source.start()
        to.start()
        self.whole(source, to)

    def test_link_is_cut(self):
        """It waits for what it lacks, and goes on; nothing is lost."""
        proxy = self.lab.closing(Proxy(self.other().address))
        command, source, to = self.leave(*SLOW, via=proxy.address)
        for _ in range(2):
            proxy.cut()
            wait_for("paused", lambda: source.status("t")["status"] == "postcopy-paused")
            wait_for("it to go on", lambda: source.status("t")["status"] == "postcopy-active")
        command.finish().ok()
        self.whole(source, to)

    def test_running_is_lost(self):
        """The guest runs there, and its source finds that out by itself."""
        proxy = self.lab.closing(Proxy(self.other().address))
        proxy.at("RUNNING", HANG_UP)
        command, source, to = self.leave(*SLOW, via=proxy.address)
        self.vm.lives(1)
        command.finish().ok()
        self.whole(source, to)
