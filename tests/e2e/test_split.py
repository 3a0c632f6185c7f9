# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest whose memory is only in part on its host; memory servers hold the rest."""

import os
import shutil
import signal

from godwit_lab import MIB, check, kill, wait_for
from godwit_runner import Group
from godwit_split import AtMessages, all_of_it_ends, await_two_copies, sub_host_dies
from godwit_wire import DROP, HOLD, Proxy

LIMIT = 40 * MIB  # of which the guest's kernel uses a half
UNIT = 512 * 4096  # a chunk on huge pages


class Splits(Group):
    """A part of it stays, and the guest checks all of it, again and again."""

    timeout = 120
    folder, limit, options = "ram", LIMIT, ()

    def setup(self):
        self.a = self.lab.host("a")
        self.subs = [self.lab.host(name, "--memory-server-limit", "512M") for name in "bc"]

    def to(self, *hosts):
        return ",".join(host.address for host in hosts or self.subs)

    def split(self, *hosts, **more):
        result = self.a.godwit("split", "t", "--to", self.to(*hosts), "--main-memory",
                               str(self.limit), "--history-period", "200", "--json",
                               *self.options, **more)
        return result.ok().json()["godwit"]["split"]

    def resident(self):
        """Bytes of its memory that are here, as the file system counts them."""
        path = os.path.join(self.a.run, self.folder, "vm", "t", "godwit-ram")
        return os.stat(path).st_blocks * 512

    def stays_within(self, passes):
        """The guest works on, and never has more than its limit here."""
        goal, most = self.vm.count() + passes, 0

        def done():
            nonlocal most
            most = max(most, self.resident())
            return self.vm.count() >= goal
        wait_for("the guest to work on", done, 60)
        check(most <= self.limit + 8 * UNIT, f"{most} bytes are here, of {self.limit}")

    def is_held(self):
        """A sub-host shows what it holds, and does not drop what is in use."""
        for host in self.subs:
            held = host.godwit("held", "--json").ok().json()["held"]
            check([one["name"] for one in held] == ["t"], held)
            check(held[0]["connected"] and 0 < held[0]["held"] <= held[0]["size"], held)
            host.godwit("held", "--drop", held[0]["id"], "--confirm").failed("is connected")

    def merge(self):
        self.a.godwit("merge", "t", timeout=100).ok()
        self.is_whole()

    def is_whole(self):
        """It is like any other, and nobody holds anything of it."""
        check(self.a.state("t") == "running", self.a.state("t"))
        check("split" not in self.a.list()["t"], self.a.list()["t"])
        for host in self.subs:
            wait_for(f"{host.name} to hold nothing", lambda h=host: not h.workers(), 10)
            check("512 MiB" in host.godwit("held").ok().out, host.godwit("held").out)
            check(not host.godwit("held", "--json").ok().json()["held"], "held")
        self.vm.lives()


class Split(Splits):
    """A quarter of it."""

    weight = 90

    def setup(self):
        super().setup()
        self.boot()

    def boot(self):
        self.vm = self.lab.vm(memory="160M", run=("memtest:56",)).boot(self.a)

    def test_there_and_back(self):
        """Twice; and what cannot be done meanwhile says so."""
        for _ in range(2):
            before = self.resident()
            split = self.split()
            check(split["away-pages"] * 4096 >= before - self.limit - 32 * MIB, split)
            check(self.a.state("t") == "split", self.a.state("t"))
            self.stays_within(2)
            status = self.a.status("t")["godwit"]["split"]
            check(status["page-ins"] > 0 and status["page-outs"] > 0, status)
            check(sum(holder["pages"] for holder in status["holders"]) >= status["away-pages"],
                  status)
            check(all(holder["connected"] and holder["pages"] for holder in status["holders"]),
                  status)
            text = self.a.godwit("status", "t").ok().out
            check("split-active" in text and "away" in text and self.subs[0].address in text, text)
            self.is_held()
            self.a.godwit("split", "t", "--to", self.to(), "--main-memory",
                          "64M").failed("other hosts")
            self.merge()

    def test_asked_at_once(self):
        """Of a godwitd that has just begun, while its forerunner's keeper is still at it."""
        self.split()
        self.a.kill()
        self.a.start()
        self.merge()

    def test_pager_is_killed(self):
        self.split()
        for _ in range(3):
            kill(self.a.worker())
            self.stays_within(1)
        self.merge()

    def test_memory_server_is_killed(self):
        self.split()
        for host in self.subs:
            kill(host.worker())
            self.stays_within(1)
        self.merge()

    def test_daemons_are_killed(self):
        self.split()
        for host in (self.a, *self.subs):
            host.kill()
            host.start()
            wait_for("it to be split still", lambda: self.a.state("t") == "split")
            self.stays_within(1)
        self.merge()

    def servers(self):
        return {one["address"] for one in self.a.list()["t"]["split"]["servers"]}

    def evacuated(self, host, *others):
        """Nothing is at @host any more."""
        check(not host.godwit("held", "--json").ok().json()["held"], "held")
        wait_for(f"{host.name} to hold nothing", lambda: not host.workers(), 10)
        check(self.servers() == {other.address for other in others}, self.servers())
        self.stays_within(1)

    def test_evacuated(self):
        """What is at one goes to another that its user names, or to the one that stays."""
        b, c = self.subs
        self.split(b)
        self.a.godwit("evacuate", b.address).failed("name another with --to")
        nobody, twice = self.lab.address(), self.lab.closing(Proxy(b.address))
        self.a.godwit("evacuate", b.address, "--to", nobody).failed(nobody)
        self.a.godwit("evacuate", b.address, "--to", twice.address).failed(twice.address)
        wait_for("them to be gone", lambda: self.servers() == {b.address}, 30)
        self.stays_within(1)
        self.a.godwit("evacuate", c.address, "t").failed("has nothing at")
        check("no VM" in self.a.godwit("evacuate", c.address).ok().out, "evacuate")
        done = self.a.godwit("evacuate", b.address, "--to", c.address, "--json").ok().json()
        holders = done[0]["godwit"]["split"]["holders"]
        check(done[0]["name"] == "t" and len(holders) == 1 and holders[0]["pages"], done)
        self.evacuated(b, c)
        # By the name that it calls itself; and back to a host that was left before.
        self.a.godwit("evacuate", holders[0]["host"], "t", "--to", b.address).ok()
        self.evacuated(c, b)
        self.merge()

    def test_evacuated_by_another(self):
        """Its pager dies as it is at it, and who follows goes on."""
        b, c = self.subs
        self.split(b)
        proxy = self.lab.closing(Proxy(c.address))
        held = proxy.at("STORED", HOLD, 3)
        command = self.a.start_godwit("evacuate", b.address, "--to", proxy.address)
        proxy.reached(held)
        wait_for("it to be evacuated", lambda: "split-evacuating" in
                 self.a.godwit("status", "t").ok().out, 10)
        kill(self.a.worker())
        command.finish(30).failed("another begins")
        proxy.release()
        wait_for("it to have left", lambda: self.servers() == {proxy.address}, 60)
        self.evacuated(b, proxy)
        self.merge()

    def test_refused(self):
        """What cannot be split stays as it is, and is told why."""
        nobody = self.lab.address()
        self.a.godwit("split", "t", "--to", nobody, "--main-memory", "64M").failed(nobody)
        self.a.godwit("split", "t", "--to", self.a.address, "--main-memory",
                      "64M").failed("--memory-server-limit")
        self.a.godwit("split", "t", "--to", self.to(), "--main-memory", "1G").failed("160 MiB")
        twice = self.lab.closing(Proxy(self.subs[0].address))
        self.a.godwit("split", "t", "--to", self.to(self.subs[0], twice), "--main-memory",
                      "64M").failed(self.subs[0].address)  # or that the other ended it
        self.a.godwit("split", "t", "--to", f"{self.to(self.subs[0])}=8M", "--main-memory",
                      "64M").failed("beyond --main-memory")
        self.a.godwit("merge", "t").failed("all memory")
        check(self.a.state("t") == "running", self.a.state("t"))

    def test_cancelled(self):
        """By Ctrl-C: as a sub-host has not answered yet, and as it is at it."""
        for message, nth in (("HOLDING", 1), ("STORED", 3)):
            proxy = self.lab.closing(Proxy(self.subs[0].address))
            held = proxy.at(message, HOLD, nth)
            command = self.a.start_godwit("split", "t", "--to", self.to(proxy, self.subs[1]),
                                          "--main-memory", str(self.limit))
            proxy.reached(held)
            command.signal(signal.SIGINT)
            if message == "STORED":
                wait_for("it to come back",
                         lambda: self.a.status("t")["status"] == "split-merging")
                proxy.release()
            command.finish().failed("cancelled")
            self.is_whole()

    def test_killed(self):
        """Its QEMU ends while nobody keeps it, and nobody holds anything of it."""
        self.split()
        keeper, qemu = self.a.worker(), self.a.qemu("t")
        self.a.kill()
        kill(keeper)
        kill(qemu)
        self.a.start()
        for host in self.subs:
            wait_for(f"{host.name} to hold nothing", lambda h=host: not h.workers(), 10)
        self.vm.gone()
        self.boot()

    def test_stopped(self):
        """It ends as it is split, and nobody holds anything of it."""
        self.split()
        self.vm.stop()
        for host in self.subs:
            wait_for(f"{host.name} to hold nothing", lambda h=host: not h.workers(), 10)


class SplitTwice(Splits):
    """Each page is stored by two sub-hosts, and one of them may die."""

    weight = 120
    timeout = 180
    options, limit = ("--replicas", "2"), 64 * MIB

    def setup(self):
        super().setup()
        self.vm = self.lab.vm(memory="160M", run=("memtest:56",)).boot(self.a)

    def status(self):
        return self.a.status("t")["godwit"]["split"]

    def is_whole_again(self):
        await_two_copies(self.a)

    def die(self, host, loses=False):
        sub_host_dies(host, self.a, loses)

    def test_one_dies(self):
        """The guest runs on; it comes back with what it had, or without, and dies again."""
        split = self.split()
        check(split["replicas"] == 2, split)
        self.is_whole_again()
        for host, loses in ((self.subs[0], False), (self.subs[1], True), (self.subs[0], True)):
            self.die(host, loses)
            self.stays_within(2)
            check(self.status()["single-pages"] > 0, self.status())
            host.start()
            self.is_whole_again()
            self.stays_within(1)
        self.merge()

    def test_merged_without(self):
        """All of it comes back although one of the two is gone."""
        b = self.subs[0]
        self.split()
        self.is_whole_again()
        self.die(b, True)
        self.a.godwit("merge", "t", timeout=100).ok()
        b.start()
        self.is_whole()

    def test_replaced(self):
        """One that is gone for ever is evacuated to another; and then the other dies."""
        b, c = self.subs
        d = self.lab.host("d", "--memory-server-limit", "512M")
        self.split()
        self.is_whole_again()
        self.die(b, True)
        self.a.godwit("evacuate", b.address).failed("name another with --to")
        self.a.godwit("evacuate", b.address, "--to", d.address, timeout=100).ok()
        check({one["address"] for one in self.a.list()["t"]["split"]["servers"]} ==
              {c.address, d.address}, self.a.list())
        self.is_whole_again()
        b.start()
        self.die(c)
        self.stays_within(2)
        c.start()
        self.is_whole_again()
        self.subs = [b, c, d]
        self.merge()
        self.subs = [b, c]
        self.lab.drop(d)

    def test_pager_is_killed(self):
        """Just as one of them is gone; and who follows finds who has what."""
        self.split()
        self.is_whole_again()
        self.die(self.subs[0])
        for _ in range(2):
            kill(self.a.worker())
            self.vm.lives(1)  # its limit begins at what is here, and comes down
        self.subs[0].start()
        self.is_whole_again()
        self.merge()

    def test_refused(self):
        b, _c = self.subs
        self.a.godwit("split", "t", "--to", b.address, "--main-memory", "64M", "--replicas",
                      "2").failed("as many sub-hosts")
        self.a.godwit("split", "t", "--to", f"{self.to()}=64M", "--main-memory", "64M",
                      "--replicas", "2").failed("stored by two")
        self.a.godwit("migrate", "t", b.address, "--split", b.address, "--main-memory", "64M",
                      "--replicas", "2").failed("as many sub-hosts")
        self.a.godwit("migrate", "t", b.address, "--replicas", "2").failed("belong to --split")


class SplitMoves(AtMessages, Group):
    """A VM moves to a main host and two sub-hosts at once, while it writes."""

    timeout = 180
    limit = 64 * MIB

    def setup(self):
        self.a = self.lab.host("a")
        self.main = self.lab.host("main")
        self.subs = [self.lab.host(name, "--memory-server-limit", "512M") for name in "bc"]
        self.vm = self.boot()

    def boot(self):
        return self.lab.vm(memory="160M", run=("memtest:56",)).boot(self.a)

    def to(self, *hosts):
        return ",".join(host.address for host in hosts or self.subs)

    def start(self, *options, main=None, split=None):
        return self.a.start_godwit("migrate", "t", (main or self.main).address, "--split",
                                   split or self.to(), "--main-memory", str(self.limit),
                                   "--history-period", "50", "--downtime-limit", "2000",
                                   *options)

    def start_to(self, peer, *options):
        return self.start(*options, main=peer)

    def move(self, *options):
        result = self.start("--json", *options).finish(100).ok().json()
        self.vm.settle(self.main)
        return result["godwit"]

    def resident(self, host):
        path = os.path.join(host.run, "ram", "vm", "t", "godwit-ram")
        return os.stat(path).st_blocks * 512

    def nothing_is_held(self):
        for host in self.subs:
            wait_for(f"{host.name} to hold nothing",
                     lambda h=host: not h.godwit("held", "--json").ok().json()["held"], 20)

    def stays(self):
        """The guest runs on where it was, and nothing of it is anywhere else."""
        check(self.a.state("t") == "running", self.a.state("t"))
        self.vm.lives()
        wait_for("nothing to be left at the main host", lambda: not self.main.list(), 20)
        self.nothing_is_held()

    def merge(self):
        self.main.godwit("merge", "t", timeout=100).ok()
        check(self.main.state("t") == "running", self.main.state("t"))
        self.nothing_is_held()
        self.vm.lives()



class SplitMove(SplitMoves):
    """To the end, and to what ends it before."""

    weight = 90

    def test_there_and_on(self):
        """Each page goes to its holder; there it is like any split VM, and moves on when merged."""
        before = self.resident(self.a)
        godwit = self.move()
        check(godwit["mode"] == "split", godwit["mode"])
        away = godwit["sub-hosts"]["away-pages"]
        check(away * 4096 >= before - self.limit - 16 * MIB, godwit)
        check(all(one["pages"] for one in godwit["sub-hosts"]["holders"]), godwit)
        check(not self.a.list(), self.a.list())
        check(self.resident(self.main) <= self.limit + 8 * UNIT, self.resident(self.main))
        check(self.main.state("t") == "split", self.main.state("t"))
        self.vm.lives()
        status = self.main.status("t")
        check(status["status"] == "split-active", status)
        check(status["godwit"]["split"]["page-ins"] > 0, status)
        check(self.resident(self.main) <= self.limit + 8 * UNIT, self.resident(self.main))
        self.merge()
        self.vm.move(self.a)

    def test_to_two(self):
        """Each page is at both sub-hosts when it runs there, and one of them dies then."""
        godwit = self.move("--replicas", "2")
        away = godwit["sub-hosts"]["away-pages"]
        check([one["pages"] for one in godwit["sub-hosts"]["holders"]] == [away, away], godwit)
        await_two_copies(self.main)
        sub_host_dies(self.subs[0], self.main, loses=True)
        self.vm.lives()
        self.subs[0].start()
        await_two_copies(self.main)
        self.merge()
        self.vm.move(self.a)

    def holds(self, host):
        held = host.godwit("held", "--json").ok().json()["held"]
        return held and held[0]["held"] > 0

    def test_ends_before(self):
        """Whatever ends it before the guest has left leaves it running, and the sub-hosts empty."""
        slow = ("--max-bandwidth", "6M")

        def under_way():
            command = self.start(*slow)
            for host in self.subs:
                wait_for(f"{host.name} to hold something", lambda h=host: self.holds(h), 40)
            return command

        command = self.start("--history-period", "10000")
        wait_for("it to look which memory is used", lambda: self.a.status("t").get(
            "godwit", {}).get("sub-hosts", {}).get("sampling"), 40)
        check("sampling" in self.a.godwit("status", "t").ok().out, "status")
        self.a.godwit("cancel", "t").ok()
        command.finish().failed("cancelled")
        self.stays()

        command = under_way()
        check("to sub-hosts" in self.a.godwit("status", "t").ok().out, "status")
        self.a.godwit("cancel", "t").ok()
        command.finish().failed("cancelled")
        self.stays()

        command = under_way()
        kill(self.subs[0].worker())
        command.finish().failed(self.subs[0].address)
        self.stays()

        command = under_way()
        kill(self.main.worker())
        command.finish().failed("runs on here")
        self.stays()

        command = under_way()
        kill(self.a.worker())
        command.finish().failed("runs on here")
        self.stays()
        self.move()
        kill(self.main.worker())
        self.vm.lives()
        self.merge()
        self.vm.move(self.a)

    def test_all_of_it_ends(self):
        """Its QEMU and who moves it die at once: nobody holds anything of it."""
        command = self.start("--max-bandwidth", "6M")
        for host in self.subs:
            wait_for(f"{host.name} to hold something", lambda h=host: self.holds(h), 40)
        all_of_it_ends(self.a, self.main, self.vm, command)
        self.nothing_is_held()
        self.vm = self.boot()

    def test_refused(self):
        """What cannot be is refused, with a reason, and the guest stays as it is."""
        nobody = self.lab.address()
        self.start("--verify").finish().failed("--verify")
        self.start("--postcopy", "now").finish().failed("--postcopy")
        self.start("--chunk-pages", "64").finish().failed("--chunk-pages")
        self.start("--main-memory", "1G").finish().failed("160 MiB")
        self.start(split=f"{self.to()},{nobody}").finish().failed(nobody)
        self.start(split=f"{self.to()},{self.to()}").finish().failed("named twice")
        self.start(split=self.main.address).finish().failed("--memory-server-limit")
        self.start(split=f"{self.to(self.subs[0])}=8M").finish().failed("beyond --main-memory")
        self.start(split=f"{self.to(self.subs[0])}=97M",
                   *("--main-memory", "63M")).finish().failed("too few")
        self.a.godwit("migrate", "t", self.main.address, "--main-memory",
                      "64M").failed("belong to --split")
        self.stays()


class SplitLarge(SplitMoves):
    """A VM for which no host has room."""

    weight = 30

    def test_larger_than_any_host(self):
        """Its main host never had room for all of it."""
        small = self.lab.host("small", "--memory-limit", "100M")
        self.a.godwit("migrate", "t", small.address).failed("160 MiB")
        self.start(main=small).finish(100).ok()
        self.vm.settle(small)
        self.vm.lives()
        check(self.resident(small) <= self.limit + 8 * UNIT, self.resident(small))
        small.godwit("merge", "t").failed("of memory for another VM")
        check(small.state("t") == "split", small.state("t"))
        self.vm.lives()
        self.vm.stop()
        self.nothing_is_held()


class SplitSwitchover(SplitMoves):
    """The moment in which the guest changes hosts."""

    weight = 60

    def runs_there(self):
        self.vm.settle(self.main)
        wait_for("it to be split", lambda: self.main.state("t") == "split", 20)
        check(not self.a.list(), self.a.list())
        self.vm.lives()
        self.merge()
        self.vm.move(self.a)

    def test_taken_back(self):
        """It runs on here, and what its holders had of it is made good by later rounds."""
        qmp = self.lab.closing(self.vm.qmp())

        def until_it_runs():
            wait_for("the guest to run on", lambda: qmp.call("query-status")["running"])
        result = self.at(self.main, "DEVICE", until_it_runs, "--json").finish(100).ok().json()
        check(result["godwit"]["switchover"]["taken-back"] >= 1, result["godwit"])
        qmp.close()
        self.runs_there()

    def test_not_loaded(self):
        self.at(self.main, "LOADED", lambda: DROP).finish(100).failed("was not loaded")
        self.stays()

    def test_main_host_dies(self):
        """Before COMMIT it runs on here; after it, there."""
        self.killed_at(self.main, "LOADED", self.main, DROP).failed("runs on here")
        self.stays()
        self.killed_at(self.main, "RUNNING", self.main).ok()
        self.runs_there()

    def test_in_doubt(self):
        """Who settles it dismisses the sub-hosts, or leaves them to the main host."""
        self.killed_at(self.main, "COMMIT", self.a, DROP).failed("godwit recover t")
        self.vm.rests()
        check("it runs here" in self.a.godwit("recover", "t").ok().out, "recover")
        self.stays()
        self.killed_at(self.main, "RUNNING", self.a).failed("godwit recover t")
        check("at the destination" in self.a.godwit("recover", "t").ok().out, "recover")
        self.runs_there()


class SplitDirect(Splits):
    """The same with direct I/O, which no write-protection stops, and a balloon."""

    weight = 40
    folder, limit = "ram-small", 64 * MIB

    def setup(self):
        image = os.path.join(self.lab.dir, "disk.img")
        with open(image, "wb") as f:
            f.truncate(16 * MIB)
        super().setup()
        self.vm = self.lab.vm(memory="256M", run=("memtest:24", "fill:16", "diskio:/dev/vda:4"),
                              args=("-drive", f"file={image},format=raw,if=virtio,cache=none",
                                    "-device", "virtio-balloon-pci,id=balloon")).boot(self.a)

    def test_there_and_back(self):
        self.split()
        self.stays_within(3)
        qmp = self.lab.closing(self.vm.qmp())
        for size in (190, 256):
            qmp.call("balloon", value=size * MIB)
            wait_for(f"a balloon to leave {size} MiB",
                     lambda s=size: qmp.call("query-balloon")["actual"] == s * MIB, 40)
        qmp.close()
        self.stays_within(2)
        self.merge()


class SplitMoveDirect(Splits):
    """The same with direct I/O, which is found by comparing, and which its keeper heeds there."""

    weight = 60
    timeout = 180
    folder, limit = "ram-small", 64 * MIB

    def setup(self):
        image = os.path.join(self.lab.dir, "disk.img")
        with open(image, "wb") as f:
            f.truncate(16 * MIB)
        super().setup()
        self.main = self.lab.host("main")
        self.vm = self.lab.vm(memory="256M", run=("memtest:24", "fill:16", "diskio:/dev/vda:4"),
                              args=("-drive", f"file={image},format=raw,if=virtio,cache=none",
                                    "-device", "virtio-balloon-pci,id=balloon")).boot(self.a)

    def test_there(self):
        result = self.a.godwit("migrate", "t", self.main.address, "--split", self.to(),
                               "--main-memory", str(self.limit), "--history-period", "50",
                               "--downtime-limit", "2000", "--json", timeout=100)
        check(result.ok().json()["godwit"]["sub-hosts"]["away-pages"] > 0, result)
        self.vm.settle(self.main)
        self.a = self.main
        self.stays_within(3)
        self.merge()
