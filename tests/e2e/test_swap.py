# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory servers that have a disk: for what finds no room in memory, and for their own VMs."""

import os
import shutil

from godwit_lab import MIB, check, kill, wait_for
from godwit_runner import Group

LIMIT = 40 * MIB  # of which the guest's kernel uses a half


class Swap(Group):
    """A guest that checks all of its memory, of which three quarters may be on a disk."""

    weight = 90
    timeout = 150

    def setup(self):
        self.disks = [self.lab.disk(), self.lab.disk()]
        self.a = self.lab.host("a", "--swap-dir", self.disks[0], "--swap-limit", "512M")
        self.b = self.lab.host("b", "--memory-server-limit", "64M", "--swap-dir", self.disks[1],
                               "--swap-limit", "256M")
        self.vm = self.lab.vm(memory="160M", run=("memtest:56",)).boot(self.a)

    def split(self, *to):
        return self.a.godwit("split", "t", "--to", ",".join(to), "--main-memory", str(LIMIT),
                             "--history-period", "200")

    def works(self, passes):
        goal = self.vm.count() + passes
        wait_for("the guest to work on", lambda: self.vm.count() >= goal, 60)

    def held(self, host):
        return host.godwit("held", "--json").ok().json()

    def lies_in(self, host, where, most=None):
        """It has some of the VM's memory, there, and the VM's pager calls it, at once or again."""
        said = self.held(host)
        check([one["name"] for one in said["held"]] == ["t"], said)
        one = wait_for("it to be called", lambda: next(
            (one for one in self.held(host)["held"] if one["connected"]), None))
        check(one["where"] == where and one["held"] and not one["failed"], one)
        check(most is None or one["size"] <= most, one)
        return one

    def merge(self):
        self.a.godwit("merge", "t", timeout=100).ok()
        check(self.a.state("t") == "running", self.a.state("t"))
        for host in (self.a, self.b):
            wait_for(f"{host.name} to hold nothing",
                     lambda h=host: not self.held(h)["held"] and not h.workers(), 20)
        for path in self.disks:
            check(os.listdir(path) == ["run"], os.listdir(path))
        self.vm.lives()

    def test_own_disk(self):
        """On the disk of the host that it runs on; its memory server dies, and so do both."""
        self.split(self.a.address).ok()
        one = self.lies_in(self.a, "disk")
        blocks = os.stat(os.path.join(self.disks[0], one["id"], "godwit-ram")).st_blocks
        check(blocks * 512 >= one["held"] / 2, blocks)
        ram = os.path.join(self.a.run, "ram", "vm", "t", "godwit-ram")
        check(os.stat(ram).st_blocks * 512 <= LIMIT + 16 * MIB, os.stat(ram))
        self.works(2)
        text = self.a.godwit("held").ok().out
        check(" disk " in text and "of 512 MiB (swap-limit)" in text, text)
        text = self.a.godwit("hosts").ok().out
        check("of 512 MiB" in text and "promised, on disk" in text, text)
        for _ in range(3):
            for pid in self.a.workers():
                kill(pid)
            self.works(1)
        self.a.kill()
        self.a.start()
        wait_for("it to be split still", lambda: self.a.state("t") == "split")
        self.works(2)
        self.lies_in(self.a, "disk")
        self.merge()

    def test_beyond_memory(self):
        """Memory where there is room, else the disk: of this host, or of another."""
        self.split(f"{self.b.address}=60M", f"{self.a.address}=80M").ok()
        self.lies_in(self.b, "memory")
        self.lies_in(self.a, "disk")
        self.works(2)
        self.merge()
        self.split(f"{self.b.address}=140M").ok()
        self.lies_in(self.b, "disk")
        said = self.held(self.b)
        check((said["limit"], said["swap-limit"]) == (64 * MIB, 256 * MIB), said)
        check(said["swap-free"] == 116 * MIB and 0 < said["free"] <= 64 * MIB, said)
        self.works(1)
        kill(self.b.worker())
        self.works(1)
        self.b.kill()
        self.b.start()
        self.works(1)
        self.lies_in(self.b, "disk")
        self.merge()

    def test_refused(self):
        """More than both have; and memory of the host that it runs on."""
        # Of a VM of 160 MiB never more than that is asked for, so the limit is made smaller.
        small = self.lab.host("small", "--swap-dir", self.lab.disk(), "--swap-limit", "100M")
        self.split(f"{small.address}=140M").failed("swap-limit of 100 MiB")
        check(self.a.state("t") == "running", self.a.state("t"))
        self.split(f"{small.address}=70M", f"{self.b.address}=70M").ok()
        self.lies_in(small, "disk", 70 * MIB)
        self.lies_in(self.b, "disk")
        self.works(1)
        self.merge()
        wait_for("small to hold nothing",
                 lambda: not self.held(small)["held"] and not small.workers(), 20)
        self.lab.drop(small)
        plain = self.lab.host("plain", "--memory-server-limit", "512M")
        self.vm.move(plain)
        plain.godwit("split", "t", "--to", plain.address, "--main-memory",
                     str(LIMIT)).failed("would free nothing")
        check(plain.state("t") == "running", plain.state("t"))
        self.vm.move(self.a)
        self.a.godwit("migrate", "t", plain.address, "--split", plain.address, "--main-memory",
                      str(LIMIT)).failed("would free nothing")
        check(self.a.state("t") == "running", self.a.state("t"))
        self.vm.lives()
        wait_for("nothing to be left there", lambda: not plain.list(), 20)
        self.lab.drop(plain)

    def test_moves_to_a_disk(self):
        """It moves to a host that keeps three quarters of it on its own disk."""
        self.a.godwit("migrate", "t", self.b.address, "--split", self.b.address, "--main-memory",
                      str(LIMIT), "--history-period", "50", "--downtime-limit", "2000",
                      timeout=100).ok()
        self.vm.settle(self.b)
        check(self.b.state("t") == "split", self.b.state("t"))
        self.lies_in(self.b, "disk")
        self.works(2)
        self.b.godwit("merge", "t", timeout=100).ok()
        wait_for("b to hold nothing", lambda: not self.held(self.b)["held"], 20)
        self.vm.move(self.a)

    def test_what_a_boot_leaves(self):
        """A folder that nothing is known of is removed; what runs is not."""
        self.split(self.a.address).ok()
        one = self.lies_in(self.a, "disk")
        left = os.path.join(self.disks[0], "0123456789abcdef0123456789abcdef")
        self.a.kill()
        shutil.copytree(os.path.join(self.disks[0], one["id"]), left)
        self.a.start()
        wait_for("it to be removed", lambda: not os.path.exists(left), 20)
        self.works(1)
        self.lies_in(self.a, "disk")
        self.merge()


class SwapFolder(Group):
    """What a godwitd says of the folder that it is to use."""

    weight = 10

    def start(self, *options, config=None):
        """What a godwitd says that does not start."""
        args = [*options]
        if config:
            path = os.path.join(self.lab.dir, "godwit.conf")
            with open(path, "w", encoding="utf-8") as file:
                file.write(config)
            args += ["--config", path]
        try:
            host = self.lab.host("x", *args)
        except AssertionError as e:
            self.lab.hosts.clear()
            return str(e)
        self.lab.drop(host)
        return ""

    def test_options(self):
        disk = self.lab.disk()
        folder = os.path.join(disk, "deep", "swap")
        said = self.start("--swap-dir", disk)
        check("say with swap-limit" in said, said)
        said = self.start("--swap-limit", "1G")
        check("name that with swap-dir" in said, said)
        said = self.start("--swap-dir", "/dev/shm", "--swap-limit", "1G")
        check("swap-dir: " in said, said)
        os.chmod(disk, 0o777)
        said = self.start("--swap-dir", folder, "--swap-limit", "1G")
        check("swap-dir: " in said and disk in said, said)
        os.chmod(disk, 0o700)
        said = self.start(config=f"swap-dir = {folder}\nswap-limit = lots\n")
        check("godwit.conf, line 2" in said, said)
        said = self.start(config=f"swap-dir = {folder}\nswap-limit = 1G\n")
        check(not said and os.path.isdir(folder), said)
        shutil.rmtree(os.path.join(disk, "deep"))

    def test_disk_map(self):
        """It is the operator's: it is there, and nobody else changes it."""
        folder = os.path.join(self.lab.dir, "maps")
        said = self.start("--disk-map-dir", folder)
        check("disk-map-dir: " in said and "No such file" in said and not os.path.exists(folder), said)
        os.mkdir(folder)
        os.chmod(folder, 0o777)
        said = self.start("--disk-map-dir", folder)
        check("disk-map-dir: " in said and folder in said, said)
        os.chmod(folder, 0o755)
        said = self.start(config=f"disk-map-dir = {folder}\n")
        check(not said, said)
