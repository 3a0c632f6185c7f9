# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest whose memory is only in part on its host; memory servers hold the rest."""

import os
import signal

from godwit_lab import MIB, check, kill, wait_for
from godwit_runner import Group
from godwit_wire import HOLD, Proxy

LIMIT = 40 * MIB  # of which the guest's kernel uses a half
UNIT = 512 * 4096  # a chunk on huge pages


class Splits(Group):
    """A part of it stays, and the guest checks all of it, again and again."""

    timeout = 120
    folder, limit = "ram", LIMIT

    def setup(self):
        self.a = self.lab.host("a")
        self.subs = [self.lab.host(name, "--memory-server-limit", "512M") for name in "bc"]

    def to(self, *hosts):
        return ",".join(host.address for host in hosts or self.subs)

    def split(self, *hosts, **more):
        result = self.a.godwit("split", "t", "--to", self.to(*hosts), "--main-memory",
                               str(self.limit), "--history-period", "200", "--json", **more)
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
            self.a.godwit("migrate", "t", self.subs[0].address).failed("godwit merge t")
            self.a.godwit("split", "t", "--to", self.to(), "--main-memory",
                          "64M").failed("other hosts")
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

    def test_refused(self):
        """What cannot be split stays as it is, and is told why."""
        nobody = self.lab.address()
        self.a.godwit("split", "t", "--to", nobody, "--main-memory", "64M").failed(nobody)
        self.a.godwit("split", "t", "--to", self.a.address, "--main-memory",
                      "64M").failed("--memory-server-limit")
        self.a.godwit("split", "t", "--to", self.to(), "--main-memory", "1G").failed("160 MiB")
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

    def test_stopped(self):
        """It ends as it is split, and nobody holds anything of it."""
        self.split()
        self.vm.stop()
        for host in self.subs:
            wait_for(f"{host.name} to hold nothing", lambda h=host: not h.workers(), 10)


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
