# SPDX-License-Identifier: GPL-2.0-or-later
"""Page cache is read from the destination's disk: whole, verified, and never on anybody's word alone."""

import hashlib
import json
import os
import random
import shutil
import subprocess

from godwit_lab import Failure, GUEST, MIB, Qmp, check, kill, read_text, wait_for
from godwit_runner import Group

PAGE = 4096
FILES, FILE_MIB = 3, 16
ALL = FILES * FILE_MIB * MIB // PAGE
# Pages of files, but for the little that the guest drops or reads anew.
MOST = ALL * 95 // 100

# What guests do besides, on their disks.
SCRIPTS = {
    # A folder that is encrypted on the disk, and the files of a volume on the second one.
    "hide": """set -e
mkdir /disk/secret /tmp/volume
encrypt /disk/secret
head -c 16777216 /dev/urandom >/disk/secret/new
linear volume /dev/vdb 2048
mount -t ext4 -o ro /dev/dm-0 /tmp/volume
cat /disk/secret/new /tmp/volume/f* >/dev/null
sync
echo hide: done
""",
    # Files that are read once the second disk says so.
    "later": """until blockdev --flushbufs /dev/vdb && [ "$(head -c 2 /dev/vdb)" = go ]; do sleep 0.1; done
cat /disk/f0 /disk/f1 >/dev/null
echo later: done
""",
    # How many pages of files each zone of the memory has: what is above 4 GiB is Normal.
    "zones": """cat /disk/f* >/dev/null
awk '$1 == "Node" { zone = $NF } /nr_zone_(in)?active_file/ { pages[zone] += $2 }
     END { for (zone in pages) print "zones: " zone " " pages[zone] }' /proc/zoneinfo
""",
}


def command(*args):
    done = subprocess.run(args, capture_output=True, text=True)
    check(done.returncode == 0, f"{' '.join(args)}: {done.stdout}{done.stderr}")


class Cached(Group):
    """A guest that has read files, and checks its memory; the image is the same file for both hosts."""

    weight = 40

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")
        self.image = self.make_image("disk.img")

    def make_image(self, name):
        folder = os.path.join(self.lab.dir, name + ".files")
        image = os.path.join(self.lab.dir, name)
        os.mkdir(folder)
        for script, text in SCRIPTS.items():
            with open(os.path.join(folder, script), "w", encoding="ascii") as f:
                f.write(text)
        self.sums = []
        for i in range(FILES):
            data = random.Random(i).randbytes(FILE_MIB * MIB)
            self.sums.append(hashlib.md5(data, usedforsecurity=False).hexdigest())
            with open(os.path.join(folder, f"f{i}"), "wb") as f:
                f.write(data)
        with open(image, "wb") as f:
            f.truncate(2 * FILES * FILE_MIB * MIB)
        command("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(PAGE), "-d", folder, image)
        return image

    run = ()
    initrd = "initrd.img"

    def boot(self, image, driver="raw", options="gw.disk=ro", readonly="on", more=(), memory="192M",
             run=("memtest:8",), read=range(FILES)):
        files = ":".join(f"/disk/f{i}" for i in read)
        drive = f"file={image},format={driver},if=virtio,readonly={readonly}"
        vm = self.lab.vm(memory=memory, run=run, args=["-drive", drive, *more])
        append, initrd = vm.args.index("-append") + 1, vm.args.index("-initrd") + 1
        vm.args[append] += f" {options} gw.run=md5sum:{files}"
        vm.args[initrd] = os.path.join(os.path.dirname(vm.args[initrd]), self.initrd)
        vm.boot(self.a, *self.run)
        for i in read:
            vm.wait_line(f"{self.sums[i]}  /disk/f{i}")
        return vm

    def own_image(self, name):
        """For who writes to it."""
        return shutil.copyfile(self.image, os.path.join(self.lab.dir, name))

    def other(self, vm):
        return self.b if vm.host is self.a else self.a

    def move(self, vm, *options):
        """Its account, after all memory has been compared."""
        return vm.move(self.other(vm), "--verify", "--no-reuse", *options)["godwit"]

    def taken(self, told, least=MOST, by="index"):
        pages = told["pages"]["teleported"]
        check(pages >= least, f"{pages} pages went by what the disk holds, {least} and more could: {told}")
        check(told["bytes"]["teleported"] < pages * 32, f"{told['bytes']}")
        check(told["teleport"]["by"] == by, f"{told['teleport']}")
        # On a busy machine some are refused because the disk was too slow; never most.
        check(told["teleport"]["refused"] <= pages // 2, f"{told['teleport']}")
        return pages

    def test_index(self):
        """There and back; the second time nothing of the image is read for its index."""
        vm = self.boot(self.image)
        for _ in range(2):
            self.taken(self.move(vm, "--teleport=index"))
        vm.lives()
        folder = os.path.join(self.a.root, "lib/index")
        check(len(os.listdir(folder)) == 1, os.listdir(folder))
        vm.stop()

    def test_off(self):
        vm = self.boot(self.image)
        told = self.move(vm)
        check(told["pages"]["teleported"] == 0 and "teleport" not in told, f"{told}")
        self.taken(self.move(vm, "--teleport"))
        vm.stop()

    def test_overlay(self):
        """The base image is what many VMs share, and its index with it."""
        overlay = os.path.join(self.lab.dir, "overlay.qcow2")
        command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", self.image, overlay)
        vm = self.boot(overlay, "qcow2")
        self.taken(self.move(vm, "--teleport=index"))
        vm.lives()
        vm.stop()

    def test_check(self):
        """What can be read and what cannot, of a VM, and who tells."""
        empty = os.path.join(self.lab.dir, "empty.img")
        with open(empty, "wb") as f:
            f.truncate(MIB)
        vm = self.boot(self.image, more=("-drive", f"file={empty},format=raw,if=virtio,file.locking=off"))
        os.rename(empty, empty + ".moved")
        with open(empty, "wb") as f:
            f.truncate(MIB)
        told = self.a.godwit("check", "t", "--json").ok().json()
        check([(disk["disk"], disk["ok"]) for disk in told["disks"]] == [("virtio0", True), ("virtio1", False)], told)
        check("does not have open" in told["disks"][1]["error-desc"], told)
        check(not told["agent"]["ok"] and "no port" in told["agent"]["error-desc"], told)
        text = self.a.godwit("check", "t").ok().out
        check("virtio1" in text and "cannot be read" in text and "agent" in text, text)
        self.a.godwit("check", "other").failed("no VM 'other'")
        vm.stop()

    def test_refused_words(self):
        vm = self.boot(self.image)
        vm.migrate(self.b.address, "--teleport=perhaps").finish().failed("auto, agent, index or off")
        vm.migrate(self.b.address, "--teleport", "--hash", "xxh3").finish().failed("only --hash gmac")
        vm.stop()

    def test_other_content(self):
        """What the guest has cached is not on the disk any more: it travels."""
        image = self.own_image("other.img")
        vm = self.boot(image)
        with open(image, "r+b") as f:
            f.seek(6 * MIB)
            f.write(bytes(FILE_MIB * MIB))
        told = self.move(vm, "--teleport=index")
        pages = self.taken(told, MOST // 3)
        check(pages < FILES * FILE_MIB * MIB // PAGE * 9 // 10, f"{pages} pages are said to be there")
        vm.lives()
        vm.stop()

    def test_none(self):
        """A guest without a disk has nothing to read, and moves as ever."""
        vm = self.lab.vm(run=("memtest:8",)).boot(self.a)
        told = self.move(vm, "--teleport")
        check(told["pages"]["teleported"] == 0, f"{told['pages']}")
        vm.stop()


class Agent(Cached):
    """A guest with an agent, which tells of its page cache."""

    weight = 120
    mkguest = ("--agent", GUEST)
    initrd = "agent.img"
    run = ("--agent",)

    def test_module(self):
        """There and back: it answers on the other host, too."""
        vm = self.boot(self.image, options="gw.disk=ro gw.module gw.agent")
        check(self.a.godwit("check", "t", "--json").ok().json()["agent"]["ok"], "the agent does not answer")
        for _ in range(3):
            self.taken(self.move(vm, "--teleport"), by="module")
        vm.lives()
        vm.stop()

    def test_without_module(self):
        vm = self.boot(self.image, options="gw.disk=ro gw.agent")
        self.taken(self.move(vm, "--teleport=agent"), by="agent")
        vm.stop()

    def test_index(self):
        """Nobody in the guest answers: the index does."""
        vm = self.boot(self.image)
        told = self.move(vm, "--teleport=agent")
        check(told["pages"]["teleported"] == 0, f"{told['pages']}")
        self.taken(self.move(vm, "--teleport"))
        vm.stop()

    def unanswered(self):
        """How often a guest was waited for to the end."""
        return read_text(self.a.log).count("the guest does not tell of its page cache")

    def test_cancel(self):
        """A guest that says nothing is waited for; who ends the migration meanwhile is heard at once."""
        vm = self.boot(self.image, options="gw.disk=ro gw.module gw.agent")
        self.lab.closing(vm.qmp()).call("stop")
        vm.paused = True
        for _ in range(5):  # a destination may take so long to begin that nobody waits any more
            before = self.unanswered()
            command = vm.migrate(self.b.address, "--teleport=agent")
            wait_for("the first round", lambda: "t: active" in self.a.godwit("status", "t").out)
            self.a.godwit("cancel", "t").ok()
            command.finish().failed("cancelled", "paused")
            if self.unanswered() == before:
                break
        else:
            raise Failure("the guest was waited for each time, and then the migration was cancelled")
        vm.stop()

    def test_two_disks(self):
        """Of two disks of one size each page is read from its own: what the other has is other bytes."""
        other = self.own_image("second.img")
        with open(other, "r+b") as f:
            f.write(random.Random(7).randbytes(2 * FILES * FILE_MIB * MIB))
        drives = ("-drive", f"id=own,if=none,file={other},format=raw", "-device", "virtio-blk-pci,drive=own,addr=0x1e")
        vm = self.boot(self.image, options="gw.disk=ro gw.module gw.agent", more=drives)
        self.taken(self.move(vm, "--teleport=agent"), by="module")
        vm.stop()

    def test_small_blocks(self):
        """Of a file system of 1 KiB blocks a page lies at any sector."""
        image = self.own_image("small.img")
        command("mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-d", self.image + ".files", image)
        vm = self.boot(image, options="gw.disk=ro gw.module gw.agent")
        self.taken(self.move(vm, "--teleport=agent"), by="module")
        vm.stop()

    def test_left_out(self):
        """Who looks at the guest from inside tells of no volume and no encrypted file; the index knows bytes."""
        image, volume = self.own_image("hidden.img"), os.path.join(self.lab.dir, "volume.img")
        command("tune2fs", "-O", "encrypt", image)
        os.mkdir(volume + ".files")
        with open(os.path.join(volume + ".files", "f0"), "wb") as f:
            f.write(random.Random(11).randbytes(FILE_MIB * MIB))
        command("mke2fs", "-q", "-t", "ext4", "-b", str(PAGE), "-E", f"offset={MIB}", "-d", volume + ".files", volume,
                f"{2 * FILE_MIB}M")
        vm = self.boot(image, options="gw.disk=rw gw.module gw.agent gw.run=sh:/disk/hide", readonly="off",
                       more=("-drive", f"file={volume},format=raw,if=virtio,readonly=on"))
        vm.wait_line("hide: done")
        pages = self.taken(self.move(vm, "--teleport=agent"), by="module")
        check(pages <= ALL + 100, f"{pages} pages went by what disks hold, {ALL} can")
        self.taken(self.move(vm, "--teleport=index"), least=MOST * (FILES + 1) // FILES)
        vm.lives()
        vm.stop()

    def test_above_the_hole(self):
        """Page frames above 4 GiB are elsewhere in the file of the guest's memory."""
        vm = self.boot(self.image, options="gw.disk=ro gw.module gw.agent gw.run=sh:/disk/zones", memory="5G")
        above = int(vm.wait_line(r"zones: Normal (\d+)")[1])
        check(above >= MOST, f"only {above} pages of files lie above 4 GiB")
        told = self.move(vm, "--teleport=agent")
        self.taken(told, by="module")
        vm.lives()
        vm.stop()

    def test_later_rounds(self):
        """What the guest reads while it moves is page cache, too: it is asked again."""
        sign = os.path.join(self.lab.dir, "sign.img")
        with open(sign, "wb") as f:
            f.truncate(MIB)
        vm = self.boot(self.image, options="gw.disk=ro gw.module gw.agent gw.run=sh:/disk/later", read=(2,),
                       run=("memtest:1", "fill:48"), more=("-drive", f"file={sign},format=raw,if=virtio,readonly=on"))
        vm.wait_line("fill: filled")
        # The first round takes eight seconds for what does not compress alone.
        moving = vm.migrate(self.other(vm).address, "--json", "--no-reuse", "--teleport=agent", "--downtime-limit", "1500",
                            "--max-bandwidth", "6M")
        wait_for("pages to travel", lambda: vm.host.status("t")["status"] == "active")
        with open(sign, "r+b") as f:
            f.write(b"go")
        told = moving.finish().ok().json()["godwit"]
        vm.arrived(self.other(vm))
        check(told["verified"] and "later: done" in vm.read(), f"{told}")
        later = sum(one["teleported"] for one in told["rounds"][1:])
        check(later >= 2 * MOST // FILES // 2, f"{later} pages went by what the disk holds in later rounds: {told}")
        check(told["teleport"]["by"] == "module", f"{told['teleport']}")
        vm.stop()

    def test_lies(self):
        """The disk is not what it was when the guest read it: what was told is refused, and travels."""
        image = self.own_image("lies.img")
        vm = self.boot(image, options="gw.disk=ro gw.module gw.agent")
        with open(image, "r+b") as f:
            f.write(random.Random(9).randbytes(2 * FILES * FILE_MIB * MIB))
        told = self.move(vm, "--teleport=agent")
        check(told["pages"]["teleported"] >= MOST, f"{told['pages']}")
        check(told["teleport"]["refused"] >= MOST and told["teleport"]["given-up"], f"{told}")
        vm.lives()
        vm.stop()

    def churned(self, *options):
        """Files are written, truncated, deleted and written again all the time, on a disk that both hosts have."""
        image = self.own_image("churn.img")
        vm = self.boot(image, options="gw.disk=rw gw.module gw.agent gw.run=churn:/disk:8", readonly="off")
        vm.wait_line("churn: ")
        teleported = 0
        for _ in range(4):
            told = self.move(vm, "--downtime-limit", "2000", *options)
            teleported += told["pages"]["teleported"]
            vm.lives()
        check(teleported >= MOST // 2, f"{teleported} pages went by what the disk holds in four moves")
        check("BAD" not in vm.read(), vm.text[-500:])
        vm.stop()

    def test_churn(self):
        self.churned("--teleport=agent")

    def test_churn_by_index(self):
        self.churned("--teleport=index")

    def test_post_copy(self):
        """Rounds before the guest goes may go by what disks hold."""
        vm = self.boot(self.image, options="gw.disk=ro gw.module gw.agent")
        told = vm.move(self.other(vm), "--teleport", "--postcopy", "auto", "--postcopy-after", "1",
                       "--no-reuse")["godwit"]
        self.taken(told, by="module")
        vm.lives()
        vm.stop()

    def test_post_copy_now(self):
        """And so may what follows it, to and fro; what it waits for is sent."""
        vm = self.boot(self.image, options="gw.disk=ro gw.module gw.agent")
        for options, by in (("--teleport=agent",), "module"), (("--teleport=index", "--no-reuse"), "index"):
            told = vm.move(self.other(vm), "--postcopy", "now", *options)["godwit"]
            check(told["mode"] == "postcopy", told["mode"])
            self.taken(told, MOST * 9 // 10, by)
            vm.lives()
        vm.stop()

    def test_post_copy_churn(self):
        self.churned("--teleport=agent", "--postcopy", "now")

    def test_post_copy_killed(self):
        """Whoever reads the disk dies: who comes after him is sent what is missing, and files are what they were."""
        image = self.own_image("churn.img")
        vm = self.boot(image, options="gw.disk=rw gw.module gw.agent gw.run=churn:/disk:8", readonly="off")
        vm.wait_line("churn: ")
        for _ in range(2):
            source, to = vm.host, self.other(vm)
            vm.migrate(to.address, "--teleport=index", "--postcopy", "now", "--max-bandwidth", "8M")
            wait_for("the guest to run there", lambda: source.status("t")["status"] == "postcopy-active")
            vm.settle(to)
            kill(to.worker())
            wait_for("its memory to be there", lambda: to.state("t") == "running", 60)
            wait_for("nothing of it to be left", lambda: source.state("t") is None and not source.workers(), 20)
            wait_for("its pager to be done", lambda: not to.workers(), 10)
            vm.lives()
        check("BAD" not in vm.read(), vm.text[-500:])
        vm.stop()


class Disk:
    """An image that both hosts see through FUSE, and that can be made to hang or to fail."""

    def __init__(self, lab, image):
        self.path = image + ".mounted"
        monitor = image + ".qmp"
        with open(self.path, "wb"):
            pass
        raw = {"driver": "raw", "file": {
            "driver": "blkdebug", "image": {"driver": "file", "filename": image},
            "set-state": [{"event": "write_aio", "state": 1, "new_state": 2}],
            "inject-error": [{"event": "read_aio", "state": 2, "errno": 5, "once": False}]}}
        device = os.stat(self.path).st_dev
        self.process = subprocess.Popen(
            ["qemu-storage-daemon", "--chardev", f"socket,id=m,path={monitor},server=on,wait=off",
             "--monitor", "chardev=m", "--object", "throttle-group,id=rate",
             "--blockdev", json.dumps({"driver": "throttle", "node-name": "disk", "throttle-group": "rate", "file": raw}),
             "--export", f"fuse,id=e,node-name=disk,mountpoint={self.path},writable=on"])
        lab.closing(self)
        wait_for("the image to be mounted", lambda: os.stat(self.path).st_dev != device)
        self.qmp = Qmp(monitor)

    def hang(self):
        """Each read takes more than an hour, but for one."""
        self.qmp.call("qom-set", path="/objects/rate", property="limits", value={"bps-read": 1})

    def fail(self):
        """Reads fail once something was written, which are the bytes that are there."""
        fd = os.open(self.path, os.O_RDWR)
        os.pwrite(fd, os.pread(fd, PAGE, 0), 0)
        os.close(fd)

    def close(self):
        self.qmp.close()
        self.process.kill()  # it waits for reads that hang, and answers nobody
        self.process.wait()
        command("umount", self.path)


class Faulty(Cached):
    """A guest whose disk nobody can read any more, once it has read its files."""

    weight = 20
    mkguest = ("--agent", GUEST)
    initrd = "agent.img"
    run = ("--agent",)

    def lost(self, change):
        """The hint is, and nothing else; neither is the disk waited for."""
        disk = Disk(self.lab, self.own_image(f"{change.__name__}s.img"))
        vm = self.boot(disk.path, options="gw.disk=ro gw.module gw.agent")
        change(disk)
        told = self.move(vm, "--teleport=agent")
        check(told["pages"]["teleported"] >= MOST, f"{told['pages']}")
        check(told["teleport"]["refused"] >= MOST and told["teleport"]["given-up"], f"{told}")
        vm.lives()
        vm.stop()
        return told

    def test_hangs(self):
        self.lost(Disk.hang)

    def test_fails(self):
        self.lost(Disk.fail)


class Replica(Agent):
    """The disk that the guest has read holds something else by now; a replica at the destination does not."""

    def setup(self):
        self.maps = os.path.join(self.lab.dir, "maps")
        os.mkdir(self.maps, 0o700)
        self.a = self.lab.host("a")
        self.b = self.lab.host("b", "--disk-map-dir", self.maps)
        self.image = self.make_image("disk.img")

    def replica(self, name, image=None):
        return shutil.copyfile(image or self.image, os.path.join(self.maps, name))

    def cached(self, options="gw.disk=ro gw.module gw.agent"):
        """A guest whose own disk does not have what it has cached: by that alone all would be refused."""
        image = self.own_image("own.img")
        vm = self.boot(image, options=options)
        with open(image, "r+b") as f:
            f.write(random.Random(9).randbytes(2 * FILES * FILE_MIB * MIB))
        return vm

    def test_equal(self):
        self.replica("web1")
        vm = self.cached()
        self.taken(self.move(vm, "--disk-map", "virtio0=web1"), by="module")
        vm.lives()
        vm.stop()

    def test_lagging(self):
        """It lacks what was written of late: that is refused, and travels."""
        lagging = 6 * MIB, FILE_MIB * MIB
        with open(self.replica("web1"), "r+b") as f:
            f.seek(lagging[0])
            f.write(bytes(lagging[1]))
        vm = self.cached()
        told = self.move(vm, "--teleport=agent", "--disk-map", f"virtio0={os.path.join(self.maps, 'web1')}")
        pages = self.taken(told, by="module")
        refused = told["teleport"]["refused"]
        check(refused >= lagging[1] // PAGE // 2, f"{refused} of {pages} pages were refused: {told['teleport']}")
        vm.lives()
        vm.stop()

    def test_qcow2(self):
        command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.image, os.path.join(self.maps, "web1.qcow2"))
        vm = self.cached()
        self.taken(self.move(vm, "--disk-map", "virtio0=web1.qcow2"), by="module")
        vm.stop()

    def test_by_index(self):
        """Of what the disk holds now, which the replica has; none of the pages is what the guest had cached."""
        self.replica("web1")
        vm = self.boot(self.image)
        self.taken(self.move(vm, "--teleport=index", "--disk-map", "virtio0=web1"))
        vm.stop()

    def test_refused(self):
        """Before a page moves, and by its name."""
        secret = self.own_image("secret.img")
        with open(self.replica("small"), "r+b") as f:
            f.truncate(MIB)
        vm = self.boot(self.image)

        def refused(words, *texts):
            vm.migrate(self.b.address, "--disk-map", words).finish().failed(*texts)

        refused("virtio7=small", "has no disk 'virtio7'", "godwit check t")
        refused("virtio0=none", "replica 'none' of disk 'virtio0'", "host 'b'", "No such file", "runs on here")
        refused("virtio0=small", "fewer than the disk's", "runs on here")
        refused(f"virtio0={secret}", "not in the folder", "runs on here")
        refused("virtio0=../secret.img", "not in the folder", "runs on here")
        wrong = vm.migrate(self.b.address, "--disk-map", "virtio0").finish()
        check(wrong.status == 2 and "DISK=PATH" in wrong.err, f"{wrong}")
        vm.migrate(self.b.address, "--disk-map", "virtio0=small", "--teleport=off").finish().failed("which is off")
        check("t" not in self.b.list(), f"{self.b.list()}")
        self.move(vm)
        vm.migrate(self.a.address, "--disk-map", "virtio0=small").finish().failed("--disk-map-dir", "host 'a'")
        vm.lives()
        vm.stop()
