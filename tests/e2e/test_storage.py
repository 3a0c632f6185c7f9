# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks are copied with the memory: whole, while the guest writes, and undone if it stays."""

import hashlib
import os
import random
import subprocess
from contextlib import closing

from godwit_lab import MIB, check, wait_for
from godwit_runner import Group
from godwit_wire import Proxy

# Each host has a disk of its own under this name: {dir} is ROOT/run/vm/NAME.
NAME = "copy.img"
IMAGE = "{dir}/../../../" + NAME
SIZE = 64 * MIB


def command(*args):
    done = subprocess.run(args, capture_output=True, text=True)
    check(done.returncode == 0, f"{' '.join(args)}: {done.stdout}{done.stderr}")
    return done.stdout


class Copied(Group):
    weight = 40

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")

    @staticmethod
    def at(host, name=NAME):
        return os.path.join(host.root, name)

    def fresh(self):
        """Nothing of another test is here."""
        for host in (self.a, self.b):
            for name in os.listdir(host.root):
                if name.endswith(".img"):
                    os.unlink(self.at(host, name))

    def fill(self, path, form="raw", size=SIZE, *options):
        """An image of which half holds data."""
        command("qemu-img", "create", "-q", "-f", form, *options, path, str(size))
        command("qemu-io", "-f", form, "-c", f"write -P 7 4M {size // 2 - 4 * MIB}", path)

    def boot(self, form="raw", run=("memtest:8", "diskio:/dev/vda:4"), cache="none", more=()):
        """A guest that writes all the time, and knows what it has written."""
        vm = self.lab.vm(memory="192M", run=run, args=[
            "-drive", f"file={IMAGE},format={form},if=virtio,cache={cache}", *more])
        vm.boot(self.a)
        if len(run) > 1:
            vm.wait_line(r"diskio: pass \d+ ok")
        return vm

    def same(self, form, one, other):
        """What two images show, once nobody has them open."""
        command("qemu-img", "compare", "-f", form, "-F", form, one, other)

    def copy(self, vm, to, *options):
        told = vm.move(to, "--copy-storage", "--no-reuse", *options)
        check(told["disk"]["total"] >= SIZE // 2, told["disk"])
        check(told["disk"]["remaining"] == 0, told["disk"])
        return told

    def some_of_it(self):
        """Until a part of the disk is there."""
        def begun():
            status = self.a.status("t")
            return status["status"] == "setup" and status.get("disk", {}).get("transferred", 0) > 2 * MIB
        wait_for("some of the disk to be there", begun)

    def other(self, vm):
        return self.b if vm.host is self.a else self.a

    def undone(self, host):
        wait_for("all to be undone", lambda: "t" not in host.list())
        check(not os.path.exists(self.at(host)), "the copy is left")

    def ends(self, vm, host):
        """Its disk does what it should at @host, and nothing is left of the copy."""
        done = len(vm.text.split("diskio: pass"))
        wait_for("the disk to be used", lambda: len(vm.read().split("diskio: pass")) > done + 2)
        check("wrong" not in vm.text, vm.text[-500:])
        left = [name for name in os.listdir(host.root) if ".godwit-" in name]
        check(not left, left)
        monitor = vm.qmp()
        left = monitor.call("query-jobs") + monitor.call("query-block-exports")
        check(not left, left)
        nodes = [node["node-name"] for node in monitor.call("query-named-block-nodes")]
        monitor.close()
        check(not any(node.startswith("godwit") for node in nodes), nodes)

    def test_raw(self):
        """There; and back, where the old image is in the way until somebody says that it may go."""
        self.fresh()
        self.fill(self.at(self.a))
        vm = self.boot()
        self.copy(vm, self.b)
        self.ends(vm, self.b)
        vm.migrate(self.a.address, "--copy-storage").finish().failed("virtio0", NAME, "already", "overwrite")
        vm.lives()
        self.copy(vm, self.a, "--copy-storage=overwrite")
        self.ends(vm, self.a)
        vm.stop()

    def test_qcow2(self):
        """An overlay and its base: what is below stays as it is on each host."""
        self.fresh()
        for host in (self.a, self.b):
            self.fill(self.at(host, "base.img"))
        command("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=32k", "-F", "raw", "-b",
                "base.img", self.at(self.a))
        vm = self.boot("qcow2", cache="writeback")
        vm.move(self.b, "--copy-storage", "--no-reuse")
        self.ends(vm, self.b)
        said = command("qemu-img", "info", "-U", self.at(self.b))
        check("cluster_size: 32768" in said and "backing file: base.img" in said, said)
        vm.stop()
        command("qemu-img", "check", "-q", self.at(self.b))

    def test_other_base(self):
        """What is below an overlay is another there: refused, before anything is copied."""
        self.fresh()
        for form in ("raw", "qcow2"):
            self.fill(self.at(self.a, "base.img"), form)
            command("qemu-img", "create", "-q", "-f", form, self.at(self.b, "base.img"), str(SIZE))
            command("qemu-img", "create", "-q", "-f", "qcow2", "-F", form, "-b", "base.img", self.at(self.a))
            vm = self.boot("qcow2")
            moving = vm.migrate(self.b.address, "--copy-storage", "--json").finish()
            moving.failed("disk 'virtio0'", "base.img", "differ")
            check(moving.json()["disk"]["transferred"] == 0, moving)
            self.undone(self.b)
            self.ends(vm, self.a)
            vm.stop()

    def test_idle(self):
        """Of a disk that nobody writes to the copy is the very same."""
        self.fresh()
        self.fill(self.at(self.a))
        vm = self.boot(run=("memtest:8",))
        self.copy(vm, self.b)
        vm.stop()
        self.same("raw", self.at(self.a), self.at(self.b))

    def test_cancelled(self):
        """In the middle of the copy: the guest has not noticed, and nothing is left of it."""
        self.fresh()
        self.fill(self.at(self.a))
        vm = self.boot()
        moving = vm.migrate(self.b.address, "--copy-storage", "--max-bandwidth", "4M", "--progress-fd", "1")
        self.some_of_it()
        check(os.path.exists(self.at(self.b)), "no copy")
        self.a.godwit("cancel", "t").ok()
        said = moving.finish()
        said.failed("cancelled")
        check("t to " in said.out and "copying its disks, " in said.out and " of 64.0 MiB" in said.out, said)
        self.undone(self.b)
        self.ends(vm, self.a)
        self.copy(vm, self.b)
        self.ends(vm, self.b)
        vm.stop()

    def test_put_back(self):
        """What was in the way is back when the move fails."""
        self.fresh()
        self.fill(self.at(self.a))
        with open(self.at(self.b), "wb") as f:
            f.write(b"precious" * 1000)
        vm = self.boot()
        moving = vm.migrate(self.b.address, "--copy-storage=overwrite", "--max-bandwidth", "4M")
        self.some_of_it()
        self.b.kill()
        moving.finish().failed()
        self.b.start()
        wait_for("all to be undone", lambda: "t" not in self.b.list())
        with open(self.at(self.b), "rb") as f:
            check(f.read() == b"precious" * 1000, "it is another")
        self.ends(vm, self.a)
        vm.stop()

    def test_worker_is_killed(self):
        """At the source, in the middle of the copy; godwitd puts the VM right, and it moves."""
        self.fresh()
        self.fill(self.at(self.a))
        vm = self.boot()
        moving = vm.migrate(self.b.address, "--copy-storage", "--max-bandwidth", "4M")
        self.some_of_it()
        os.kill(self.a.worker(), 9)
        moving.finish().failed()
        wait_for("it to be put right", lambda: self.a.state("t") == "running")
        wait_for("all to be undone", lambda: "t" not in self.b.list())
        self.ends(vm, self.a)
        self.copy(vm, self.b)
        vm.stop()

    def test_page_cache(self):
        """What went over with the disk does not go again as memory."""
        self.fresh()
        folder = os.path.join(self.lab.dir, "files")
        os.makedirs(folder, exist_ok=True)
        data = random.Random(1).randbytes(24 * MIB)
        with open(os.path.join(folder, "f0"), "wb") as f:
            f.write(data)
        with open(self.at(self.a), "wb") as f:
            f.truncate(SIZE)
        command("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", folder, self.at(self.a))
        vm = self.lab.vm(memory="192M", run=("memtest:8", "md5sum:/disk/f0"), args=[
            "-drive", f"file={IMAGE},format=raw,if=virtio,cache=none"])
        vm.args[vm.args.index("-append") + 1] += " gw.disk=ro"
        vm.boot(self.a)
        vm.wait_line(hashlib.md5(data, usedforsecurity=False).hexdigest() + "  /disk/f0")
        told = vm.move(self.b, "--copy-storage", "--teleport=index", "--no-reuse")
        pages = told["godwit"]["pages"]["teleported"]
        # On a busy machine some are refused because the disk was too slow.
        check(pages >= 24 * MIB // 4096 * 9 // 10, f"{pages} pages: {told['godwit']}")
        check(told["godwit"]["teleport"]["refused"] <= pages // 2, told["godwit"]["teleport"])
        vm.stop()

    def test_paused(self):
        """A guest that stands still arrives as it is, and its disk with it."""
        self.fresh()
        self.fill(self.at(self.a))
        vm = self.boot(run=("memtest:8",))
        with closing(vm.qmp()) as monitor:
            monitor.call("stop")
        vm.paused = True
        self.copy(vm, self.b)
        with closing(vm.qmp()) as monitor:
            monitor.call("cont")
        vm.paused = False
        vm.lives()
        vm.stop()
        self.same("raw", self.at(self.a), self.at(self.b))

    def test_taken_back(self):
        """The guest goes on here after its disk was settled: what it writes then goes there as well."""
        self.fresh()
        self.fill(self.at(self.a))
        vm = self.boot()
        for name in ("DEVICE", "HELD"):
            qmp = self.lab.closing(vm.qmp())
            to = self.other(vm)
            proxy = self.lab.closing(Proxy(to.address))

            def until_it_runs(_frame, qmp=qmp):
                check(not qmp.call("query-status")["running"], "the guest was not stopped")
                wait_for("the guest to run on", lambda: qmp.call("query-status")["running"])

            rule = proxy.at(name, until_it_runs)
            moving = vm.migrate(proxy.address, "--copy-storage=overwrite", "--no-reuse", "--json",
                                "--downtime-limit", "1000")
            proxy.reached(rule)
            told = moving.finish().ok().json()
            check(told["godwit"]["switchover"]["taken-back"] >= 1, f"{told['godwit']}")
            vm.arrived(to)
            self.ends(vm, to)
        vm.stop()

    def test_two_disks(self):
        """One whose I/O has a thread of its own, and one that is a block node."""
        self.fresh()
        self.fill(self.at(self.a))
        self.fill(self.at(self.a, "two.img"), "qcow2")
        node = f"driver=qcow2,node-name=two,file.driver=file,file.filename={os.path.dirname(IMAGE)}/two.img"
        vm = self.lab.vm(memory="192M", run=("memtest:8", "diskio:/dev/vda:4"), args=[
            "-object", "iothread,id=io0", "-drive", f"file={IMAGE},format=raw,if=none,id=one,cache=none",
            "-device", "virtio-blk-pci,drive=one,id=vb,iothread=io0,addr=5", "-blockdev", node,
            "-device", "virtio-blk-pci,drive=two,id=vc,addr=6"])
        vm.boot(self.a)
        vm.wait_line(r"diskio: pass \d+ ok")
        self.copy(vm, self.b)
        self.ends(vm, self.b)
        vm.stop()
        self.same("qcow2", self.at(self.a, "two.img"), self.at(self.b, "two.img"))

    def test_refused(self):
        """What a copy would not have is refused by name, before the other host is called."""
        self.fresh()
        self.fill(self.at(self.a), "qcow2")
        command("qemu-img", "snapshot", "-c", "before", self.at(self.a))
        vm = self.boot("qcow2", run=("memtest:8",))
        vm.migrate(self.b.address, "--copy-storage").finish().failed("virtio0", "internal snapshots")
        vm.migrate(self.b.address, "--copy-storage=perhaps").finish().failed("new or overwrite")
        vm.stop()

    def test_postcopy(self):
        """The guest goes before its memory, and not before its disks."""
        self.fresh()
        self.fill(self.at(self.a))
        vm = self.boot()
        result = vm.host.start_godwit("migrate", "t", self.b.address, "--copy-storage", "--postcopy", "now",
                                      "--json", "--downtime-limit", "2000").finish().ok().json()
        check(result["status"] == "completed", result)
        vm.arrived(self.b)
        self.ends(vm, self.b)
        vm.stop()
