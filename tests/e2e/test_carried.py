# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM moves whose memory is split already: what its sub-hosts hold stays there."""

import os
import signal

from godwit_lab import MIB, check, kill, wait_for
from godwit_runner import Group
from godwit_split import AtMessages, all_of_it_ends, await_two_copies, sub_host_dies
from godwit_wire import DROP, HOLD, Proxy

LIMIT = 64 * MIB
SLACK = 16 * MIB


def are_called(main):
    """Whether a pager serves the VM there that reaches each sub-host, whatever that has."""
    status = main.status("t")
    return (status["status"] in ("split-active", "split-degraded") and
            all(one["connected"] for one in status["godwit"]["split"]["holders"]))


class Carried(AtMessages, Group):
    """Two hosts between which it moves, and two that hold a part of it."""

    timeout = 200

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")
        self.subs = [self.lab.host(name, "--memory-server-limit", "512M") for name in "cd"]
        self.vm = self.boot()

    def boot(self):
        return self.lab.vm(memory="160M", run=("memtest:56",)).boot(self.a)

    def split(self, *subs, options=()):
        self.a.godwit("split", "t", "--to", ",".join(host.address for host in subs or self.subs),
                      "--main-memory", str(LIMIT), "--history-period", "200", *options).ok()

    def start(self, source, to, *options):
        return source.start_godwit("migrate", "t", to.address, "--downtime-limit", "2000",
                                   *options)

    def start_to(self, peer, *options):
        return self.start(self.a, peer, *options)

    def resident(self, host):
        for folder in ("ram", "ram-small"):
            path = os.path.join(host.run, folder, "vm", "t", "godwit-ram")
            if os.path.exists(path):
                return os.stat(path).st_blocks * 512
        raise AssertionError(f"no RAM file on {host.name}")

    def held(self):
        return {one["name"] for host in self.subs
                for one in host.godwit("held", "--json").ok().json()["held"]}

    def main_host(self):
        """Whom the sub-hosts take for it."""
        return {one["host"] for host in self.subs
                for one in host.godwit("held", "--json").ok().json()["held"]}

    def is_at(self, host):
        """It is split there, as it was, and nowhere else."""
        if self.vm.host is not host:
            self.vm.settle(host)
        wait_for("it to be split", lambda: host.state("t") == "split", 20)
        for other in {self.a, self.b} - {host}:
            wait_for("nothing to be left", lambda h=other: not h.list(), 20)
        self.vm.lives()
        wait_for("its sub-hosts to be there", lambda: are_called(host), 20)
        check(self.resident(host) <= LIMIT + SLACK, self.resident(host))
        check(self.main_host() == {host.name}, self.main_host())

    def merge(self, host):
        host.godwit("merge", "t", timeout=100).ok()
        check(host.state("t") == "running", host.state("t"))
        wait_for("the sub-hosts to hold nothing", lambda: not self.held(), 20)
        self.vm.lives()


class CarriedMove(Carried):
    """To the end, and to what ends it before."""

    weight = 90

    def test_there_and_back(self):
        """Only what was at its main host travels; then it comes back, and is merged."""
        self.split()
        before = self.resident(self.a)
        result = self.start(self.a, self.b, "--json").finish(100).ok().json()
        godwit = result["godwit"]
        check(godwit["mode"] == "split" and godwit["sub-hosts"]["away-pages"] * 4096 > 32 * MIB,
              godwit)
        sent = sum(one["sent"] for one in godwit["rounds"][:1]) * 4096
        check(sent <= before + SLACK, (sent, before))
        self.is_at(self.b)
        kill(self.b.worker())
        self.is_at(self.b)
        self.start(self.b, self.a).finish(100).ok()
        self.is_at(self.a)
        self.merge(self.a)
        self.vm.move(self.b)
        self.vm.move(self.a)

    def test_paused(self):
        """A guest that stands still moves as it is."""
        self.split()
        qmp = self.lab.closing(self.vm.qmp())
        qmp.call("stop")
        qmp.close()
        self.start(self.a, self.b).finish(100).ok()
        self.vm.settle(self.b)
        qmp = self.lab.closing(self.vm.qmp())
        check(qmp.call("query-status")["status"] == "paused", "it runs")
        qmp.call("cont")
        qmp.close()
        self.is_at(self.b)
        self.start(self.b, self.a).finish(100).ok()
        self.is_at(self.a)
        self.merge(self.a)

    def test_ends_before(self):
        """Whatever ends it before the guest has left leaves it split where it was."""
        self.split()
        def under_way():
            command = self.start(self.a, self.b, "--max-bandwidth", "6M")
            wait_for("it to be under way",
                     lambda: self.a.status("t").get("ram", {}).get("transferred", 0) > 4 * MIB, 40)
            return command

        command = under_way()
        self.a.godwit("cancel", "t").ok()
        command.finish().failed("cancelled")
        self.is_at(self.a)

        command = under_way()
        command.signal(signal.SIGINT)
        command.finish().failed("cancelled")
        self.is_at(self.a)

        command = under_way()
        kill(self.b.worker())
        command.finish().failed("runs on here")
        self.is_at(self.a)

        command = under_way()
        kill(self.a.worker())
        command.finish().failed("runs on here")
        self.is_at(self.a)

        command = under_way()
        self.a.kill()
        command.finish().failed()
        self.vm.lives()
        self.a.start()
        self.is_at(self.a)

        self.a.kill()
        self.a.start()
        command = under_way()
        kill(self.subs[0].worker())
        command.finish(100)
        self.is_at(self.a if self.a.list() else self.b)
        if self.b.list():
            self.start(self.b, self.a).finish(100).ok()
            self.is_at(self.a)
        self.merge(self.a)

    def test_all_of_it_ends(self):
        """Its QEMU and who moves it die at once: nobody holds anything of it."""
        self.split()
        command = self.start(self.a, self.b, "--max-bandwidth", "6M")
        wait_for("it to be under way",
                 lambda: self.a.status("t").get("ram", {}).get("transferred", 0) > 4 * MIB, 40)
        all_of_it_ends(self.a, self.b, self.vm, command)
        wait_for("the sub-hosts to hold nothing", lambda: not self.held(), 20)
        self.vm = self.boot()

    def test_refused(self):
        """What cannot be is refused, with a reason, and the guest stays as it is."""
        self.split()
        self.start(self.a, self.b, "--verify").finish().failed("--verify")
        self.start(self.a, self.b, "--postcopy", "now").finish().failed("--postcopy")
        self.start(self.a, self.b, "--split", self.subs[0].address, "--main-memory",
                   "64M").finish().failed("split already")
        self.start(self.a, self.b, "--chunk-pages", "512").finish().failed("split already")
        self.start(self.a, self.subs[0]).finish().failed("sub-host of the VM")
        self.is_at(self.a)
        self.merge(self.a)

    def test_merging(self):
        """Who waits for its memory is not disturbed by who would move it."""
        proxy = self.lab.closing(Proxy(self.subs[0].address))
        self.split(proxy, self.subs[1])
        held = proxy.at("PAGES", HOLD)
        merge = self.a.start_godwit("merge", "t")
        proxy.reached(held)
        # What was held may be what the guest itself has asked for.
        wait_for("it to merge", lambda: self.a.status("t")["status"] == "split-merging", 20)
        self.start(self.a, self.b).finish().failed("coming back")
        proxy.release()
        merge.finish(100).ok()
        check(self.a.state("t") == "running", self.a.state("t"))
        self.vm.lives()


class CarriedSwitchover(Carried):
    """The moment in which the guest changes hosts."""

    weight = 90

    def back(self):
        self.is_at(self.b)
        self.start(self.b, self.a).finish(100).ok()
        self.is_at(self.a)

    def test_taken_back(self):
        """It runs on here, its pages come and go, and then it leaves after all."""
        self.split()
        qmp = self.lab.closing(self.vm.qmp())

        def until_it_runs():
            wait_for("the guest to run on", lambda: qmp.call("query-status")["running"])
        self.at(self.b, "DEVICE", until_it_runs).finish(100).ok()
        qmp.close()
        self.back()
        self.merge(self.a)

    def test_not_loaded(self):
        self.split()
        self.at(self.b, "LOADED", lambda: DROP).finish(100).failed("was not loaded")
        self.is_at(self.a)
        self.merge(self.a)

    def test_a_worker_dies(self):
        """Before COMMIT it runs on here; after it, there."""
        self.split()
        self.killed_at(self.b, "LOADED", self.b, DROP).failed("runs on here")
        self.is_at(self.a)
        self.killed_at(self.b, "LOADED", self.a, DROP).failed("runs on here")
        self.is_at(self.a)
        self.killed_at(self.b, "RUNNING", self.b).ok()
        self.back()
        self.merge(self.a)

    def test_in_doubt(self):
        """Whoever has it in the end has its memory."""
        self.split()
        self.killed_at(self.b, "COMMIT", self.a, DROP).failed("godwit recover t")
        self.vm.rests()
        check("it runs here" in self.a.godwit("recover", "t").ok().out, "recover")
        self.is_at(self.a)
        self.killed_at(self.b, "RUNNING", self.a).failed("godwit recover t")
        check("at the destination" in self.a.godwit("recover", "t").ok().out, "recover")
        self.back()
        self.merge(self.a)


class CarriedTwice(Carried):
    """Each page is at two sub-hosts, before and after."""

    weight = 90

    def split_for_two(self):
        self.split(options=("--replicas", "2"))
        await_two_copies(self.a)

    def there_and_back(self, dies):
        """Whoever has copies is known there, and a sub-host that dies then costs nothing."""
        self.start(self.a, self.b).finish(100).ok()
        self.is_at(self.b)
        await_two_copies(self.b)
        sub_host_dies(dies, self.b, loses=True)
        self.vm.lives()
        dies.start()
        await_two_copies(self.b)
        self.start(self.b, self.a).finish(100).ok()
        self.is_at(self.a)
        await_two_copies(self.a)
        self.merge(self.a)

    def test_there_and_back(self):
        self.split_for_two()
        self.there_and_back(self.subs[1])

    def test_without_copies(self):
        """What has one copy only as it moves is made whole there."""
        self.split_for_two()
        sub_host_dies(self.subs[0], self.a, loses=True)
        self.start(self.a, self.b).finish().failed("cannot be reached")
        self.vm.lives()
        self.subs[0].start()
        wait_for("it to be called again", lambda: are_called(self.a), 20)
        self.there_and_back(self.subs[0])

    def test_a_sub_host_dies(self):
        """As the guest changes hosts, and with all that it has."""
        def die():
            worker = self.subs[0].worker()
            self.subs[0].kill()
            kill(worker)
        self.split_for_two()
        command = self.at(self.b, "LOADED", die)
        command.finish(100)
        self.subs[0].start()
        if self.a.list():
            self.is_at(self.a)
            self.start(self.a, self.b).finish(100).ok()
        self.is_at(self.b)
        await_two_copies(self.b)
        self.start(self.b, self.a).finish(100).ok()
        self.is_at(self.a)
        self.merge(self.a)


class CarriedDirect(Carried):
    """With direct I/O, which no write-protection stops, and a balloon."""

    weight = 60

    def setup(self):
        image = os.path.join(self.lab.dir, "disk.img")
        with open(image, "wb") as f:
            f.truncate(16 * MIB)
        super().setup()

    def boot(self):
        disk = os.path.join(self.lab.dir, "disk.img")
        return self.lab.vm(memory="256M", run=("memtest:24", "fill:16", "diskio:/dev/vda:4"),
                           args=("-drive", f"file={disk},format=raw,if=virtio,cache=none",
                                 "-device", "virtio-balloon-pci,id=balloon")).boot(self.a)

    def test_there_and_back(self):
        """Units leave and come as it moves, and the limit is kept."""
        self.split()
        command = self.start(self.a, self.b, "--max-bandwidth", "20M")
        most = 0

        def done():
            nonlocal most
            if self.a.list():
                most = max(most, self.resident(self.a))
            return command.process.poll() is not None
        try:
            wait_for("it to have moved", done, 100)
        except AssertionError:
            pass  # its memory went as we looked
        command.finish(100).ok()
        check(most <= LIMIT + SLACK, f"{most} bytes were here, of {LIMIT}")
        self.is_at(self.b)
        self.start(self.b, self.a).finish(100).ok()
        self.is_at(self.a)
        self.merge(self.a)
