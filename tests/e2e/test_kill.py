# SPDX-License-Identifier: GPL-2.0-or-later
"""
Every process of a migration, killed at every point of it.

However it ends, the guest runs on exactly one host (invariant 1), the user is
told what to do, and nothing is left behind. The points are messages that a
proxy holds while the test kills: `before` is on its way to the destination,
`after` back to the source.
"""

import contextlib
import os
import signal
import subprocess

from godwit_lab import check, cmdline, kill, wait_for
from godwit_runner import Group
from godwit_wire import DROP, HOLD, Proxy

# What a point is called, and the message that is being carried then.
SETUP, ROUND, BARRIER, DEVICE, LOADED = "READY", "PAGES", "ROUND_DONE", "DEVICE", "LOADED"


def both_at_once(host):
    """Kill daemon and worker so that neither sees the other die."""
    worker = host.worker()
    os.kill(host.daemon.pid, signal.SIGSTOP)
    kill(worker)
    host.kill()


class Kill(Group):
    """A guest that goes wherever the last test left it."""

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")
        self.vm = self.lab.vm().boot(self.a)

    def to(self):
        return self.b if self.vm.host is self.a else self.a

    def at(self, message, act):
        """Migrate; at @message do act(), whose answer says what becomes of the message."""
        proxy = self.lab.closing(Proxy(self.to().address))
        rule = proxy.at(message, lambda frame: act())
        command = self.vm.migrate(proxy.address)
        proxy.reached(rule)
        result = command.finish()
        proxy.check()
        return result

    def stays(self):
        """The guest runs on where it was, and could be moved."""
        self.vm.lives()
        wait_for("the guest to be listed as running",
                 lambda: self.vm.host.state("t") == "running", 5)
        wait_for("nothing of it to be there", lambda: not self.to().list(), 5)

    def in_doubt(self, result):
        """It is stopped, and says so, until somebody settles it."""
        if "godwitd ended" not in result.err:
            check("godwit recover" in result.err, f"no advice in {result}")
        result.failed()
        host = self.vm.host
        wait_for("the guest to be in doubt", lambda: host.state("t") == "in-doubt", 5)
        self.vm.rests()
        host.godwit("migrate", "t", self.to().address).failed("godwit recover t")

    def recovers(self, *options):
        """`godwit recover` brings it back here."""
        result = self.vm.host.godwit("recover", "t", *options).ok()
        check(result.out == "t: it runs here\n", f"{result}")
        self.stays()

    def moved(self, *options):
        """`godwit recover` finds that it runs there."""
        result = self.vm.host.godwit("recover", "t", *options).ok()
        check("it runs at the destination" in result.out, f"{result}")
        self.vm.arrived(self.to())


class SourceWorker(Kill):
    """The process that sends."""

    weight = 15

    def killed_at(self, message, verdict=None):
        def act():
            kill(self.vm.host.worker())
            return verdict
        return self.at(message, act)

    def test_setup(self):
        self.killed_at(SETUP).failed("killed")
        self.stays()

    def test_round(self):
        self.killed_at(ROUND).failed("killed")
        self.stays()

    def test_barrier(self):
        self.killed_at(BARRIER).failed("killed")
        self.stays()

    def test_device(self):
        self.killed_at(DEVICE).failed("killed")
        self.stays()

    def test_loaded(self):
        self.killed_at(LOADED).failed("killed")
        self.stays()

    def test_commit_lost(self):
        """COMMIT never arrived, but nobody here knows."""
        self.in_doubt(self.killed_at("COMMIT", DROP))
        self.recovers()

    def test_commit_delivered(self):
        self.in_doubt(self.killed_at("COMMIT"))
        self.moved()

    def test_running_lost(self):
        self.in_doubt(self.killed_at("RUNNING"))
        self.moved()


    def test_settled_while_the_destination_waits(self):
        """Asking ends the destination's wait; a COMMIT that comes later does nothing."""
        source, there = self.vm.host, self.to()
        proxy = self.lab.closing(Proxy(there.address))
        rule = proxy.at("COMMIT", HOLD)
        command = self.vm.migrate(proxy.address)
        proxy.reached(rule)
        # The proxy still holds the connection to the destination, so that it waits on.
        proxy.pass_on_ends = False
        kill(source.worker())
        self.in_doubt(command.finish())
        check(there.state("t") == "incoming", f"there it is {there.state('t')}")
        self.recovers()
        proxy.release()


class DestinationWorker(Kill):
    """The process that receives."""

    weight = 15

    def killed_at(self, message, verdict=None):
        def act():
            kill(self.to().worker())
            return verdict
        return self.at(message, act)

    def test_setup(self):
        """The answer that was already under way does not help."""
        self.killed_at(SETUP, DROP).failed("closed the connection", "log")
        self.stays()

    def test_round(self):
        self.killed_at(ROUND).failed("closed the connection", "log")
        self.stays()

    def test_barrier(self):
        self.killed_at(BARRIER, DROP).failed("closed the connection", "log")
        self.stays()

    def test_device(self):
        self.killed_at(DEVICE).failed("closed the connection", "log")
        self.stays()

    def test_loaded(self):
        self.killed_at(LOADED, DROP).failed("closed the connection", "log")
        self.stays()

    def test_before_commit(self):
        """It never saw COMMIT, but the source cannot know."""
        self.in_doubt(self.killed_at("COMMIT"))
        self.recovers()

    def test_running_lost(self):
        """Having said it, the worker has nothing left to do: it may have ended already."""
        def act():
            for worker in self.to().workers():
                with contextlib.suppress(ProcessLookupError):
                    kill(worker)
            return DROP
        self.in_doubt(self.at("RUNNING", act))
        self.moved()


class SourceDaemon(Kill):
    """The source's godwitd, and with it the command's answer."""

    weight = 15

    def killed_at(self, message, verdict=None):
        def act():
            self.vm.host.kill()
            return verdict
        return self.at(message, act).failed("godwitd ended before it answered", "godwit list")

    def restart(self):
        self.vm.host.start()
        self.stays()

    def test_setup(self):
        self.killed_at(SETUP)
        self.restart()

    def test_round(self):
        self.killed_at(ROUND)
        self.restart()

    def test_barrier(self):
        self.killed_at(BARRIER)
        self.restart()

    def test_device(self):
        self.killed_at(DEVICE)
        self.restart()

    def test_loaded(self):
        self.killed_at(LOADED)
        self.restart()

    def test_commit(self):
        """A worker past COMMIT needs no godwitd: the migration completes."""
        self.killed_at("COMMIT")
        source = self.vm.host
        wait_for("the source to be left", lambda: not os.path.exists(source.dir("t")))
        self.vm.arrived(self.to())
        source.start()
        check(source.list() == {}, f"still on the source: {source.list()}")

    def test_running(self):
        self.killed_at("RUNNING")
        source = self.vm.host
        wait_for("the source to be left", lambda: not os.path.exists(source.dir("t")))
        self.vm.arrived(self.to())
        source.start()

    def test_with_its_worker(self):
        """Both at once: the next godwitd puts it right."""
        def act():
            both_at_once(self.vm.host)
        self.at(DEVICE, act).failed("godwitd ended")
        self.vm.rests()
        self.restart()

    def test_with_its_worker_in_doubt(self):
        def act():
            both_at_once(self.vm.host)
            return DROP
        result = self.at("COMMIT", act)
        self.vm.host.start()
        self.in_doubt(result)
        self.recovers()


class DestinationDaemon(Kill):
    """The destination's godwitd."""

    weight = 15

    def killed_at(self, message):
        """Kill it, and let its worker notice before the message goes on."""
        self.daemon = self.to()

        def act():
            worker = self.daemon.worker()
            self.daemon.kill()
            wait_for("the worker to give up", lambda: not cmdline(worker), 10)
        return self.at(message, act)

    def restart(self):
        self.daemon.start()
        self.stays()

    def ended(self, message):
        self.killed_at(message).failed(f"godwitd on host '{self.daemon.name}' ended")
        check(not os.path.exists(self.daemon.dir("t")), "the worker left its folder")
        self.restart()

    def in_doubt_until_restart(self, message):
        """The worker has retreated, but COMMIT was sent: only the destination can tell."""
        self.in_doubt(self.killed_at(message))
        self.vm.host.godwit("recover", "t").failed("--resume", "--discard", "cannot be asked")
        self.daemon.start()
        self.recovers()

    def test_setup(self):
        self.ended(SETUP)

    def test_round(self):
        self.ended(ROUND)

    def test_barrier(self):
        self.ended(BARRIER)

    def test_device(self):
        self.ended(DEVICE)

    def test_loaded(self):
        self.in_doubt_until_restart(LOADED)

    def test_commit(self):
        self.in_doubt_until_restart("COMMIT")

    def test_running(self):
        """The guest runs there: neither daemon is needed any more."""
        self.daemon = self.to()
        self.at("RUNNING", self.daemon.kill).ok()
        self.vm.arrived(self.to())
        self.daemon.start()
        # Its worker may still be clearing up: the next godwitd does not wait for that.
        wait_for("the next godwitd to find it", lambda: self.vm.host.state("t") == "running", 5)

    def test_with_its_worker(self):
        def act():
            both_at_once(self.daemon)
        self.daemon = self.to()
        self.at(DEVICE, act).failed("closed the connection")
        self.vm.lives()
        check(os.path.exists(self.daemon.dir("t")), "nobody could remove it")
        self.daemon.start()
        self.stays()


class DestinationQemu(Kill):
    """The QEMU that is to take over."""

    weight = 15

    def killed_at(self, message, notice=True):
        """Kill it, and let the worker notice before the message goes on."""
        def act():
            pid, worker = self.to().qemu("t"), self.to().worker()
            check("qemu" in cmdline(pid), f"process {pid} is no QEMU")
            kill(pid)
            if notice:
                wait_for("the worker to give up", lambda: not cmdline(worker), 10)
        return self.at(message, act)

    def ended(self, message):
        name = self.to().name
        self.killed_at(message).failed(f"destination: QEMU ended on host '{name}'")
        self.stays()

    def test_setup(self):
        self.ended(SETUP)

    def test_round(self):
        self.ended(ROUND)

    def test_barrier(self):
        self.ended(BARRIER)

    def test_device(self):
        self.ended(DEVICE)

    def test_loaded(self):
        """The worker has retreated, but the source sends COMMIT before it hears of that."""
        self.in_doubt(self.killed_at(LOADED))
        self.recovers()

    def test_commit(self):
        self.in_doubt(self.killed_at("COMMIT"))
        self.recovers()

    def test_committed(self):
        """It dies between COMMIT and its first step: nobody can tell whether it ran."""
        there = self.to()
        proxy = self.lab.closing(Proxy(there.address))
        rule = proxy.at("COMMIT", lambda frame: os.kill(there.qemu("t"), signal.SIGSTOP))
        command = self.vm.migrate(proxy.address)
        proxy.reached(rule)
        wait_for("the destination to commit", lambda: there.journal("t")["phase"] == 1)
        kill(there.qemu("t"))
        self.in_doubt(command.finish())
        self.vm.host.godwit("recover", "t").failed("--resume", "--discard")
        self.recovers("--resume")

    def test_running(self):
        """It ran there, and then crashed there: as if it had always been there."""
        there = self.to()
        self.at("RUNNING", lambda: kill(there.qemu("t"))).ok()
        source = self.vm.host
        wait_for("the record's end", lambda: not there.list(), 5)
        check(source.list() == {}, f"on the source: {source.list()}")
        self.vm.gone()
        self.vm = self.lab.vm().boot(source)


class DestinationStands(Kill):
    """The QEMU that is to take over stands still when COMMIT comes, for longer than anybody waits."""

    weight = 60

    def stands_still(self):
        """In doubt at the source, and then there, too, by the answer that nothing is known."""
        there, source = self.to(), self.vm.host
        result = self.at("COMMIT", lambda: os.kill(there.qemu("t"), signal.SIGSTOP))
        self.in_doubt(result)
        source.godwit("recover", "t").failed("does not answer", "--resume")
        check(there.state("t") == "in-doubt", f"there it is {there.state('t')}")
        self.vm.rests()
        return there, there.qemu("t")

    def test_fenced(self):
        """The operator has it back: it is dead there first, and a new godwitd starts nothing."""
        there, qemu = self.stands_still()
        result = self.vm.host.godwit("recover", "t", "--resume").ok()
        check(result.out == "t: it runs here\n", f"{result}")
        check(not cmdline(qemu), "its QEMU lives on there")
        there.kill()
        there.start()
        self.stays()

    def test_comes_to(self):
        """Nobody there resumes it by himself any more; asked again, it is settled."""
        there, qemu = self.stands_still()
        there.kill()
        os.kill(qemu, signal.SIGCONT)
        there.start()
        # What it was told while it stood still it may do yet, or not: either is one guest.
        result = self.vm.host.godwit("recover", "t").ok()
        if "it runs at the destination" in result.out:
            self.vm.arrived(there)
        else:
            check(result.out == "t: it runs here\n", f"{result}")
            self.stays()


class DestinationRefuses(Kill):
    """After COMMIT, QEMU there does not resume a guest whose disk somebody else has locked."""

    weight = 30

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")
        self.image = os.path.join(self.lab.dir, "disk.img")
        with open(self.image, "wb") as f:
            f.truncate(16 << 20)
        drive = f"file={self.image},format=raw,if=virtio"
        self.vm = self.lab.vm(args=["-drive", drive]).boot(self.a)

    def recovering_while_its_monitor_hangs(self):
        """Also while a worker holds its lock."""
        qemu = self.vm.pid()
        os.kill(qemu, signal.SIGSTOP)
        try:
            wait_for("the next try", self.vm.host.workers, 30)
            for _ in range(20):
                state = self.vm.host.state("t")
                check(state == "recovering", f"it is {state}")
        finally:
            os.kill(qemu, signal.SIGCONT)

    def test_locked(self):
        """It never ran there, so it is the source's again; which waits for the disk, too."""
        other = []

        def lock():
            other.append(subprocess.Popen(["qemu-io", "-f", "raw", self.image],
                                          stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            other[0].stdin.write(b"length\n")
            other[0].stdin.flush()
            check(b"16 MiB" in other[0].stdout.readline(), "the disk was not opened")
        try:
            self.at("COMMIT", lock).failed("destination: QEMU refused cont", "lock")
            check(not self.to().list(), "something is left there")
            check(self.vm.host.state("t") == "recovering", f"it is {self.vm.host.state('t')}")
            self.vm.rests()
            self.recovering_while_its_monitor_hangs()
        finally:
            other[0].kill()
            other[0].wait()
        wait_for("the source to resume it", lambda: self.vm.host.state("t") == "running", 60)
        self.stays()


class SourceQemu(Kill):
    """The QEMU that is being moved: its guest is lost, and nothing else."""

    weight = 15

    def lost_at(self, message):
        def act():
            os.kill(self.vm.pid(), signal.SIGKILL)
        source, there = self.vm.host, self.to()
        self.at(message, act).failed("ended here in mid-move", "runs nowhere now")
        wait_for("the records' end", lambda: not source.list() and not there.list(), 5)
        self.vm.gone()
        self.vm = self.lab.vm().boot(source)

    def test_round(self):
        self.lost_at(ROUND)

    def test_barrier(self):
        self.lost_at(BARRIER)

    def test_after_saving(self):
        """It has saved its state: the destination carries on without it."""
        def act():
            os.kill(self.vm.pid(), signal.SIGKILL)
        self.at(LOADED, act).ok()
        self.vm.arrived(self.to())
