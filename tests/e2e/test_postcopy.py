# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that goes before its memory, and what becomes of the two on the way."""

import os
import shutil
import time

from godwit_lab import MIB, check, kill, read_text, wait_for
from godwit_runner import Group
from godwit_wire import HANG_UP, Proxy
from test_move import Attached

PAGE = 4096
GONE = 4   # GW_SOURCE_GONE, in a source's journal

# What is still to come then takes seconds, and the guest asks for what it needs.
SLOW = ("--postcopy", "now", "--max-bandwidth", "8M")


class TwoHosts(Group):
    """And a guest that checks its memory as it goes."""

    @staticmethod
    def lost(source):
        """How often it has said that it cannot reach the other side."""
        return read_text(source.log).count("the destination of the guest's memory is lost")

    def setup(self):
        self.a, self.b = self.lab.host("a"), self.lab.host("b")

    def boot(self):
        self.vm = self.lab.vm(memory="160M", run=("memtest:24",)).boot(self.a)

    def other(self):
        return self.a if self.vm.host is self.b else self.b

    def leave(self, *options, via=None):
        """Begin a move, and wait until the guest runs there: (command, source, destination)."""
        name, source, to = self.vm.name, self.vm.host, self.other()
        command = self.vm.migrate(via or to.address, "--json", *options)
        wait_for("the guest to run there",
                 lambda: source.status(name)["status"] == "postcopy-active")
        self.vm.settle(to)
        return command, source, to

    def whole(self, source, to):
        """All of its memory is there, and it is a VM like any other."""
        name = self.vm.name
        wait_for("its memory to be there", lambda: to.state(name) == "running", 60)
        wait_for("nothing of it to be left",
                 lambda: source.state(name) is None and not source.workers(), 20)
        check(not os.path.exists(source.dir(name)),
              f"the folder of {name} is still on {source.name}")
        wait_for("its pager to be done", lambda: not to.workers(), 10)
        self.vm.lives()


class PostCopy(TwoHosts):
    """It goes before its memory, whatever happens on the way."""

    weight = 60

    def setup(self):
        super().setup()
        self.boot()

    def test_now(self):
        """Without a round; to and fro, each time as a VM like any other."""
        for _ in range(3):
            result = self.vm.move(self.other(), "--postcopy", "now")
            check(result["godwit"]["mode"] == "postcopy", result["godwit"]["mode"])
            ram = result["ram"]
            check(ram["postcopy-requests"] > 0, "no page was asked for")
            check(0 < ram["postcopy-latency"] <= ram["postcopy-latency-max"], ram)
            check(sum(ram["postcopy-latency-dist"]) > 0, ram)
            check(len(ram["postcopy-vcpu-latency"]) == 1 and ram["postcopy-vcpu-latency"][0], ram)

    def test_after_rounds(self):
        """What is there already faults, too, and is sent as what has changed in it."""
        result = self.vm.move(self.other(), "--postcopy", "auto", "--postcopy-after", "1",
                              "--downtime-limit", "60", "--max-bandwidth", "40M",
                              "--compress", "none")
        own = result["godwit"]
        check(own["mode"] == "hybrid", own["mode"])
        # What the round has sent is not missing, unless it was written since.
        pages, first = sum(own["pages"].values()), own["rounds"][0]["pages"]
        check(pages < first * 3 // 2, f"{pages} pages, of which {first} in one round")

    def test_writes_faster_than_the_link(self):
        """Rounds never get there; post-copy does."""
        slow = ("--max-bandwidth", "10M", "--downtime-limit", "60", "--compress", "none")
        self.vm.migrate(self.other().address, *slow).finish().failed("faster than it can be moved")
        self.vm.lives()
        result = self.vm.move(self.other(), "--postcopy", "auto", *slow)
        own = result["godwit"]
        check(own["mode"] == "hybrid", own["mode"])
        check(len(own["rounds"]) <= 4, f"{len(own['rounds'])} rounds, though none could help")

    def test_status_and_too_late(self):
        command, source, to = self.leave(*SLOW)
        check(source.state("t") == "serving" and to.state("t") == "postcopy",
              f"{source.state('t')}, {to.state('t')}")
        check(source.status("t")["ram"]["remaining"] > 0, source.status("t"))
        check(to.status("t")["ram"]["remaining"] > 0, to.status("t"))
        for host in (source, to):
            text = host.godwit("status", "t").ok().out
            check("postcopy-active" in text and "left" in text and "faults/s" in text, text)
        wait_for("the destination's figures", lambda: source.status("t")["ram"]["postcopy-latency"])
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
            lost = self.lost(source)
            proxy.cut()
            # It may go on before anybody has seen that it was paused.
            wait_for("the source to notice", lambda n=lost: self.lost(source) > n)
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

    def test_source_dies_in_doubt(self):
        """Worker and QEMU, when the guest runs there already and nobody here knows."""
        source, to = self.vm.host, self.other()
        proxy = self.lab.closing(Proxy(to.address))

        def act(*_):
            kill(source.worker())
            kill(source.qemu("t"))
        proxy.at("RUNNING", act)
        command = self.vm.migrate(proxy.address, "--json", *SLOW)
        command.finish().failed("another worker")
        self.vm.settle(to)
        self.whole(source, to)

    def test_source_qemu_is_killed(self):
        """What is served lies in files, which outlive it."""
        command, source, to = self.leave(*SLOW)
        kill(source.qemu("t"))
        self.vm.lives(1)
        check(source.state("t") == "serving", source.list())
        command.finish().ok()
        self.whole(source, to)

    def test_source_qemu_worker_and_daemon_are_killed(self):
        command, source, to = self.leave(*SLOW)
        worker = source.worker()
        kill(source.qemu("t"))
        source.kill()
        kill(worker)
        command.finish().failed("godwitd")
        source.start()
        wait_for("it to be served", lambda: source.state("t") == "serving")
        self.whole(source, to)


class PostCopyReturns(TwoHosts):
    """What it leaves behind is of use when it comes back, whoever brought its memory."""

    weight = 60

    def setup(self):
        self.a, self.b = (self.lab.host(name, images="1G") for name in "ab")
        self.boot()

    def test_source_worker_is_killed(self):
        """Another hashes what the first had sent."""
        command, source, to = self.leave(*SLOW)
        kill(source.worker())
        command.finish().failed("another worker")
        self.kept(source, to)

    def kept(self, source, to):
        self.whole(source, to)
        check("t" in source.images(), "no image is kept where it left")
        pages = self.vm.move(source)["godwit"]["pages"]
        check(pages["reused"] > 1000, pages)

    def test_both_workers_are_killed(self):
        command, source, to = self.leave(*SLOW)
        kill(source.worker())
        kill(to.worker())
        command.finish().failed("another worker")
        self.kept(source, to)

    def test_complete_is_lost(self):
        """The connections break as nothing is missing any more: the source comes again."""
        proxy = self.lab.closing(Proxy(self.other().address))
        proxy.at("COMPLETE", HANG_UP)
        command, source, to = self.leave(*SLOW, via=proxy.address)
        command.finish().ok()
        self.kept(source, to)


class PostCopyEnds(TwoHosts):
    """And is gone before all of it has come: nothing waits for ever, and nothing is taken for it."""

    weight = 120

    def lost(self, source, *why):
        """The guest has run elsewhere, and is gone: that is told, and kept, until it is settled."""
        self.vm.gone()
        wait_for("it to be told", lambda: source.state("t") == "lost", 60)
        source.godwit("recover", "t").failed("host", "is gone there", "--discard", *why)
        source.godwit("recover", "t", "--resume").failed("destroys the file systems")
        check("is gone there" in source.status("t")["error-desc"], source.status("t"))
        source.stop()
        source.start()
        check("is gone there" in source.status("t")["error-desc"], source.status("t"))
        check(source.state("t") == "lost", source.list())
        qmp = self.vm.of(source)
        check(qmp.call("query-status")["status"] == "postmigrate", "its QEMU is not as it was")
        qmp.close()
        answer = source.godwit("recover", "t", "--discard", "--json").ok().json()
        check(answer["outcome"] == "moved", answer)
        check(source.state("t") is None, source.list())

    def test_destination_qemu_is_killed(self):
        """Its memory is lost, and what is here is too old for its disks."""
        self.boot()
        command, source, to = self.leave(*SLOW)
        kill(to.qemu("t"))
        command.finish().failed("is gone there", "older than its disks")
        wait_for("nothing of it to be left there", lambda: to.state("t") is None)
        self.lost(source, "QEMU ended there")

    def test_destination_is_rebooted(self):
        """Of what ran there nothing is known any more."""
        self.boot()
        command, source, to = self.leave(*SLOW)
        worker, qemu = to.worker(), to.qemu("t")
        to.kill()
        kill(worker)
        kill(qemu)
        for folder in ("vm", "settled", "ram/vm", "ram-small/vm"):
            shutil.rmtree(os.path.join(to.run, folder), ignore_errors=True)
        to.start()
        command.finish().failed("is gone there", "was booted")
        self.lost(source, "was booted")

    def test_guest_powers_off(self):
        """That ends it on both hosts, and nothing is in doubt."""
        self.boot()
        command, source, to = self.leave(*SLOW)
        qmp = self.vm.qmp()
        qmp.call("system_powerdown")
        command.finish().ok()
        qmp.close()
        self.vm.gone()
        wait_for("nothing of it to be left", lambda: source.state("t") is None and
                 to.state("t") is None)

    def test_given_up(self):
        """A destination that is never reached again keeps the source for ever, or by order not."""
        self.boot()
        command, source, to = self.leave(*SLOW)
        worker = to.worker()
        to.kill()
        kill(worker)
        wait_for("paused", lambda: source.status("t")["status"] == "postcopy-paused")
        source.godwit("recover", "t", "--discard").failed("cannot be reached", "--confirm")
        source.godwit("recover", "t", "--resume").failed("cannot be reached")
        source.godwit("recover", "t", "--discard", "--confirm").ok()
        command.finish().failed("was given up")
        check(source.state("t") is None, source.list())
        to.start()
        check(to.state("t") == "postcopy", to.list())
        self.vm.stop()


class PostCopyAttached(Attached, TwoHosts):
    """The source's QEMU is its user's, and dies while its guest's memory is served."""

    weight = 60

    def launch(self, path):
        self.vm, monitor = self.start(
            "t", "-m", "96M", "-machine", "memory-backend=ram0", "-object",
            f"memory-backend-file,id=ram0,size=96M,share=on,mem-path={path}")
        self.attach(self.vm, monitor)

    def nameless(self):
        """Its memory has no name, and only QEMU holds it."""
        fd = os.memfd_create("guest")
        os.ftruncate(fd, 96 * MIB)
        self.launch(f"/proc/{os.getpid()}/fd/{fd}")
        os.close(fd)

    def kill(self, *more):
        self.process.kill()
        self.process.wait()
        os.unlink(os.path.join(self.lab.dir, "t.qmp"))
        for pid in more:
            kill(pid)

    def arrived(self, command, source, to):
        self.vm.attached = False
        self.whole(source, to)
        self.vm.stop()

    def test_file(self):
        """Is there as long as its user leaves it there, and still is at the end."""
        self.launch("FOLDER/ram0")
        command, source, to = self.leave(*SLOW)
        self.kill(source.worker())
        command.finish().failed("another worker")
        self.arrived(command, source, to)
        check(os.listdir(self.folder) == ["ram0"], "the user's RAM file is not ours")
        shutil.rmtree(self.folder)

    def test_worker_holds_it(self):
        self.nameless()
        command, source, to = self.leave(*SLOW)
        self.kill()
        command.finish().ok()
        self.arrived(command, source, to)

    def test_nobody_holds_it(self):
        """What is lost is told of on both hosts, until it is settled; nobody tries for ever."""
        self.nameless()
        command, source, to = self.leave(*SLOW)
        left = to.status("t")["ram"]["remaining"]
        self.kill(source.worker())
        command.finish().failed("another worker")
        why = "its QEMU on host 'a' has ended"
        for again in (False, True):
            wait_for("it to be told on both", lambda: source.state("t") == to.state("t") == "lost")
            wait_for("the worker to be done", lambda: not source.workers(), 20)
            check(source.journal("t")["phase"] == GONE, source.journal("t"))
            source.godwit("recover", "t").failed("runs on host 'b'", why, "'godwit stop t' there")
            source.godwit("recover", "t", "--resume", "--confirm").failed("cannot run here", why)
            to.godwit("recover", "t").failed("runs here", why, "'godwit stop t'")
            check(why in source.status("t")["error-desc"], source.status("t"))
            status = to.status("t")
            check(status["status"] == "postcopy-paused" and why in status["error-desc"], status)
            check(0 < status["ram"]["remaining"] <= left, status)
            if again:
                break
            for host in (source, to):
                host.stop()
                host.start()
            pager = to.workers()
            kill(to.worker())
            wait_for("another pager", lambda: to.workers() not in ([], pager))
        source.godwit("recover", "t", "--discard").ok()
        check(source.state("t") is None and to.state("t") == "lost", f"{source.list()}")
        self.vm.stop()


class Return(Group):
    """A guest that comes back to a host that has kept its memory, and does not wait for that."""

    weight = 60

    def setup(self):
        self.a, self.b = (self.lab.host(name, images="1G") for name in "ab")
        self.vm = self.lab.vm(memory="512M", run=("memtest:8", "fill:300")).boot(self.a)
        self.vm.wait_line(r"fill: filled", 60)
        for host in (self.b, self.a):
            self.vm.move(host, "--compress", "none")

    def other(self):
        return self.b if self.vm.host is self.a else self.a

    def back(self):
        """Return at once (with --verify it would be compared before): the result."""
        to = self.other()
        result = self.leave_at_once(to.address, "--compress", "none").finish().ok().json()
        self.vm.arrived(to)
        return result

    def leave_at_once(self, address, *options):
        return self.vm.host.start_godwit("migrate", "t", address, "--json", "--postcopy", "now",
                                         *options)

    def once(self, result):
        own = result["godwit"]
        check(own["mode"] == "postcopy" and not own["rounds"], f"{own}")
        check(own["reuse"]["departure"] > 0, f"{own}")
        return own

    def test_at_once(self):
        """Nothing of what is there travels; to and fro, so generations and ledgers are right."""
        for _ in range(3):
            result = self.back()
            own = self.once(result)
            check(own["pages"]["reused"] * PAGE > 250 * MIB, f"{own}")
            # Some that were asked for while another thread was about to find them right.
            check(own["reuse"]["absent"] < 64, f"{own}")
            check(result["ram"]["transferred"] < 120 * MIB, f"{result['ram']}")
        # In rounds what is kept goes by the same ledgers.
        result = self.vm.move(self.other(), "--compress", "none")
        check(result["godwit"]["pages"]["reused"] * PAGE > 250 * MIB, f"{result['godwit']}")
        self.vm.lives()

    def test_damaged(self):
        """What is not what it was is found before anybody sees it."""
        ram = self.other().kept_file("t")
        altered = range(0, os.path.getsize(ram) // PAGE, 7)
        with open(ram, "r+b") as f:
            for page in altered:
                f.seek(page * PAGE + 1234)
                byte = f.read(1)
                f.seek(page * PAGE + 1234)
                f.write(bytes([byte[0] ^ 1]))
        own = self.once(self.back())
        check(0.5 * len(altered) < own["reuse"]["absent"] <= len(altered), f"{own}")
        check(own["pages"]["reused"] * PAGE > 150 * MIB, f"{own}")
        self.vm.lives()

    def test_pager_is_killed(self):
        """Its successor has not looked at anything: it is told what all should be."""
        to = self.other()
        proxy = self.lab.closing(Proxy(to.address))
        proxy.at("RUNNING", lambda *_: kill(to.worker()))
        result = self.leave_at_once(proxy.address).finish().ok().json()
        check(result["godwit"]["pages"]["reused"] * PAGE > 150 * MIB, f"{result['godwit']}")
        self.vm.arrived(to)
        self.vm.lives()
