# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line is not the VM: what QEMU has now moves, or is refused by name."""

import os
import subprocess
from contextlib import closing

from godwit_lab import check, wait_for
from godwit_runner import Group
from godwit_wire import DROP, Proxy


class Server:
    """A qemu-nbd that listens."""

    def __init__(self, lab, socket, path):
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen(["qemu-nbd", "-f", "raw", "-e", "9", "-t", "-k", socket,
                                         path])
        lab.own.add(self.process.pid)
        wait_for("the server", lambda: os.path.exists(socket))

    def close(self):
        self.process.terminate()
        self.process.wait()


class Live(Group):
    """VMs of 64 MiB without an operating system, whose disks and devices change while they run."""

    weight = 30

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")
        self.made = 0

    def image(self, name, size="16M", fmt="qcow2", *options):
        path = os.path.join(self.lab.dir, f"{self.made}-{name}")
        subprocess.run(["qemu-img", "create", "-q", "-f", fmt, *options, path, size], check=True)
        return path

    def start(self, *args):
        """A VM with @args, at a."""
        self.made += 1
        vm = self.lab.vm(f"v{self.made}", memory="64M", kernel=False, machine="pc", args=args)
        self.a.godwit("run", vm.name, "--memory", "64M", "--", *vm.args).ok()
        vm.host = self.a
        vm.settle(self.a)
        vm.lives = lambda: None  # it has nothing to say
        return vm

    def refused(self, vm, *texts):
        """It does not move, says why, and runs on where it was."""
        vm.migrate(self.b.address).finish().failed(*texts)
        wait_for("b to clear up", lambda: self.b.list() == {})
        check(self.a.list()[vm.name]["state"] == "running", "the guest was stopped")

    @staticmethod
    def unplug(qmp, device, node):
        """Take a disk out, and close its image."""
        qmp("device_del", id=device)
        wait_for("the device to go", lambda: device not in
                 [d["name"] for d in qmp("qom-list", path="/machine/peripheral")])
        wait_for("its drive to go", lambda: not qmp("query-block"))
        qmp("blockdev-del", node_name=node)

    def test_snapshot(self):
        """After an external snapshot the command line names yesterday's image."""
        base, top = self.image("base"), os.path.join(self.lab.dir, "top")
        vm = self.start("-drive", f"file={base},if=virtio,id=d0")
        with closing(vm.qmp()) as monitor:
            qmp = monitor.call
            qmp("blockdev-snapshot-sync", device="d0", format="qcow2", **{"snapshot-file": top})
        self.refused(vm, "disk 'd0' is", top, base, "block-commit")
        vm.stop()

    def test_mirror(self):
        """A mirror runs, then it has ended and the disk is another file."""
        old, new = self.image("old", "1M", "raw"), self.image("new", "1M", "raw")
        vm = self.start("-drive", f"file={old},format=raw,if=virtio,id=d0")
        with closing(vm.qmp()) as monitor:
            qmp = monitor.call
            qmp("drive-mirror", device="d0", target=new, sync="full", mode="existing",
                format="raw")
            self.refused(vm, "mirror 'd0'", "wait for its end")
            wait_for("the mirror", lambda: qmp("query-jobs")[0]["status"] == "ready")
            qmp("block-job-complete", device="d0")
            wait_for("its end", lambda: not qmp("query-jobs"))
        self.refused(vm, "disk 'd0' is", new, old)
        vm.stop()

    def test_media(self):
        """What lies in a drive is carried over, also if nothing does."""
        old, new = self.image("old.iso", "1M", "raw"), self.image("new.iso", "2M", "raw")
        vm = self.start("-drive", f"file={old},format=raw,media=cdrom,id=cd0",
                        "-device", "virtio-scsi-pci,id=s0",
                        "-blockdev", f"driver=file,node-name=n1,read-only=on,filename={old}",
                        "-device", "scsi-cd,bus=s0.0,drive=n1,id=cd1")
        with closing(vm.qmp()) as monitor:
            qmp = monitor.call
            qmp("blockdev-change-medium", device="cd0", filename=new, format="raw")
            qmp("eject", id="cd1", force=True)
        for to in (self.b, self.a):
            vm.move(to)
            with closing(vm.qmp()) as monitor:
                qmp = monitor.call
                drives = {d.get("device") or d["qdev"]: d for d in qmp("query-block")}
            check(drives["cd0"]["inserted"]["file"] == new, f"cd0 at {to.name}: {drives['cd0']}")
            check("inserted" not in drives["cd1"], f"cd1 at {to.name}: {drives['cd1']}")
        vm.stop()

    def test_swapped(self):
        """Another disk where the old one was, under the same names."""
        old, new = self.image("old"), self.image("new")
        vm = self.start("-blockdev", f"driver=qcow2,node-name=n0,file.driver=file,"
                        f"file.filename={old}", "-device", "virtio-scsi-pci,id=s0",
                        "-device", "scsi-hd,drive=n0,id=h0,bus=s0.0,scsi-id=1")
        with closing(vm.qmp()) as monitor:
            qmp = monitor.call
            self.unplug(qmp, "h0", "n0")
            qmp("blockdev-add", driver="qcow2", file={"driver": "file", "filename": new},
                **{"node-name": "n0"})
            qmp("device_add", driver="scsi-hd", drive="n0", id="h0", bus="s0.0",
                **{"scsi-id": 1})
            self.refused(vm, "disk 'h0' is", new, old)
            # Its owner gives it to another VM.
            self.unplug(qmp, "h0", "n0")
        self.refused(vm, "'h0'", "the VM does not have it any more")
        vm.stop()

    def test_plugged(self):
        vm = self.start("-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0")
        with closing(vm.qmp()) as monitor:
            qmp = monitor.call
            qmp("netdev_add", type="user", id="n1")
            qmp("device_add", driver="virtio-net-pci", netdev="n1", id="nic1")
        self.refused(vm, "device 'nic1' (virtio-net-pci at pci.0", "start the VM anew with it")
        vm.stop()

    def test_temporary(self):
        """
        What a guest writes with snapshot=on lies in a file without a name. `run`
        refuses it on the command line; here it comes later.
        """
        vm = self.start()
        with closing(vm.qmp()) as monitor:
            monitor.hmp(f"drive_add 0 file={self.image('base')},if=none,id=d0,snapshot=on")
            monitor.call("device_add", driver="virtio-blk-pci", drive="d0", id="disk0")
        self.refused(vm, "disk 'd0' is opened with -snapshot or snapshot=on")
        vm.stop()

    def copies(self, here, there):
        """Each host has its own image under one name. Return: a VM with it, at a."""
        for host, content in ((self.a, here), (self.b, there)):
            with open(os.path.join(host.root, "copy.img"), "wb") as f:
                f.write(content)
                f.truncate(1 << 20)
        # {dir} is ROOT/run/vm/NAME.
        return self.start("-drive", "file={dir}/../../../copy.img,format=raw,if=virtio,id=d0")

    def test_stale(self):
        """A copy that differs in what it holds; then it is brought up to date."""
        vm = self.copies(b"new" * 99999, b"old" * 99999)
        self.refused(vm, "disk 'd0'", "copy.img", "on host 'b'", "stale")
        with open(os.path.join(self.b.root, "copy.img"), "r+b") as f:
            f.write(b"new" * 99999)
        vm.move(self.b)
        vm.stop()

    def test_empty(self):
        vm = self.copies(b"new" * 99999, b"")
        self.refused(vm, "disk 'd0'", "differ and are empty there")
        vm.stop()

    @staticmethod
    def filled(path, fill, cluster="64k"):
        """A qcow2 image with data in it, which depends on @fill."""
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster}",
                        path, "16M"], check=True)
        subprocess.run(["qemu-io", "-c", f"write -P {fill} 0 4M", path], check=True,
                       stdout=subprocess.DEVNULL)

    def test_formats(self):
        """What the guest sees of a qcow2 image is compared, however it is stored."""
        there = os.path.join(self.b.root, "copy.img")
        self.filled(os.path.join(self.a.root, "copy.img"), 1)
        self.filled(there, 2)
        vm = self.start("-drive", "file={dir}/../../../copy.img,format=qcow2,if=virtio,id=d0")
        self.refused(vm, "disk 'd0'", "copy.img", "on host 'b'", "stale")
        self.filled(there, 1, "4k")
        vm.move(self.b)
        vm.stop()

    def test_unflushed(self):
        """Tables that the source's QEMU has yet to write are no difference on shared storage."""
        image = self.image("disk", "64M")
        vm = self.start("-drive", f"file={image},if=virtio,id=d0")
        for to in (self.b, self.a):
            with closing(vm.qmp()) as monitor:
                for i in range(16):
                    monitor.hmp(f'qemu-io d0 "write -P {i + 1} {4 * i}M 1M"')
            vm.move(to)
        vm.stop()

    def test_network_disk(self):
        """Each host has its own server; at the destination it serves something old."""
        for host, content in ((self.a, b"new" * 99999), (self.b, b"old" * 99999)):
            path = os.path.join(host.root, "served")
            with open(path, "wb") as f:
                f.write(content)
                f.truncate(1 << 20)
            self.lab.closing(Server(self.lab, os.path.join(host.root, "nbd.sock"), path))
        vm = self.start("-drive", "driver=raw,file.driver=nbd,file.server.type=unix,"
                        "file.server.path={dir}/../../../nbd.sock,if=virtio,id=d0")
        self.refused(vm, "disk 'd0'", "on host 'b'", "stale")
        vm.stop()

    def test_replaced(self):
        """What QEMU has open is not what its name leads to now."""
        image, other = self.image("disk", "1M", "raw"), self.image("other", "1M", "raw")
        with open(other, "r+b") as f:
            f.write(b"other" * 9999)
        vm = self.start("-drive", f"file={image},format=raw,if=virtio,id=d0")
        os.rename(other, image)
        self.refused(vm, "disk 'd0'", image)
        vm.stop()

    def test_unchanged(self):
        """Disks of all kinds that are as they were move."""
        base, raw = self.image("base"), self.image("raw", "1M", "raw")
        top = self.image("top", "16M", "qcow2", "-b", base, "-F", "qcow2")
        vm = self.start("-drive", f"file={top},if=virtio", "-drive", "if=floppy,id=fd0",
                        "-blockdev", f"driver=file,node-name=f,filename={raw}",
                        "-blockdev", "driver=raw,node-name=r,file=f", "-device", "nec-usb-xhci",
                        "-device", "usb-storage,drive=r", "-device", "usb-tablet",
                        "-object", "iothread,id=io0", "-nic", "user,model=e1000")
        vm.move(self.b)
        vm.move(self.a)
        vm.stop()

    def paused(self):
        """A paused VM with a disk."""
        vm = self.start("-drive", f"file={self.image('disk')},if=virtio,id=d0")
        with closing(vm.qmp()) as monitor:
            monitor.call("stop")
        vm.paused = True
        return vm

    def writes(self, vm):
        """Let it run: it can write to its disk."""
        with closing(vm.qmp()) as monitor:
            monitor.call("cont")
            answer = monitor.hmp("qemu-io d0 \"write 0 64k\"")
            check("wrote 65536" in answer or not answer.strip(), f"a write: {answer}")
            check(monitor.call("query-status")["status"] == "running", "it does not run")
        vm.stop()

    def test_paused_to_and_fro(self):
        """Moves without running in between: its disks are nevertheless its own each time."""
        vm = self.paused()
        for to in (self.b, self.a, self.b):
            vm.move(to)
            check(to.state(vm.name) == "paused", f"listed as {to.state(vm.name)}")
            with closing(vm.qmp()) as monitor:
                monitor.call("blockdev-snapshot-internal-sync", device="d0", name=f"at-{to.name}")
                monitor.call("blockdev-snapshot-delete-internal-sync", device="d0",
                             name=f"at-{to.name}")
        self.writes(vm)

    def failed_late(self, vm):
        """A migration that ends when QEMU has saved its state."""
        proxy = self.lab.closing(Proxy(self.b.address))
        proxy.at("LOADED", DROP)
        vm.migrate(proxy.address).finish().failed()

    def test_paused_again(self):
        """The state that QEMU saved once is the guest's until it runs."""
        vm = self.paused()
        self.failed_late(vm)
        self.failed_late(vm)
        vm.move(self.b)
        check(self.b.state(vm.name) == "paused", f"listed as {self.b.state(vm.name)}")
        vm.move(self.a)
        self.writes(vm)

    def test_paused_otherwise(self):
        """It has run since, and what is in postmigrate now was saved by somebody else."""
        vm = self.paused()
        self.failed_late(vm)
        with closing(vm.qmp()) as monitor:
            monitor.call("cont")
            monitor.call("stop")
            monitor.call("migrate", uri="exec:cat >/dev/null")
            wait_for("QEMU's own migration", lambda:
                     monitor.call("query-migrate")["status"] == "completed")
        vm.migrate(self.b.address).finish().failed("'postmigrate'", "cont, then stop")
        with closing(vm.qmp()) as monitor:
            monitor.call("cont")
            monitor.call("stop")
        vm.move(self.b)
        self.writes(vm)
