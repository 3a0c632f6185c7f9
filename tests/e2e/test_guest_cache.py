# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent and the kernel module tell of a guest's page cache: it is on the disk where they say.

Each page that is claimed is compared with the disk's image, and with the guest's memory as the
host sees it. Godwit itself has no part in this.
"""

import hashlib
import mmap
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import time

import godwit_lab
from godwit_lab import GUEST, MIB, Failure, Qmp, check, read_text, wait_for
from godwit_runner import Group, tests_of
from guest_cache import ASK, MODULE, REQUEST, SELF, Gone, Port, Refused

PAGE = 4096
MEMORY = 384 * MIB
# The rest is above the hole below 4 GiB, as it is in large guests: frame numbers are no offsets.
LOW_MEMORY = 256 * MIB
EXEC = ("127.0.0.1", 9001)
ALARM = re.compile(r"WARNING:|BUG:|Oops|lockdep|Call Trace|soft lockup")


def digest(data):
    return hashlib.blake2b(data, digest_size=16).digest()


class Files:
    """Files with random content, in a folder of the host: what the guest's disks hold."""

    def __init__(self, folder, seed, sizes):
        self.folder = folder
        self.digests = {}  # name -> digests of its whole pages
        os.mkdir(folder)
        for i, size in enumerate(sizes):
            data = random.Random(seed * 1000 + i).randbytes(size)
            with open(os.path.join(folder, f"f{i}"), "wb") as f:
                f.write(data)
            self.digests[f"f{i}"] = {digest(data[at:at + PAGE]) for at in range(0, size - size % PAGE, PAGE)}

    def all(self):
        return set().union(*self.digests.values())

    def proto(self):
        """A description of the folder, for mkfs.xfs."""
        path = self.folder + ".proto"
        with open(path, "w", encoding="ascii") as f:
            f.write("/dev/null\n0 0\nd--755 0 0\n")
            for name in self.digests:
                f.write(f"{name} ---644 0 0 {self.folder}/{name}\n")
            f.write("$\n")
        return path


def command(*args):
    done = subprocess.run(args, capture_output=True, text=True)
    check(done.returncode == 0, f"{' '.join(args)}: {done.stdout}{done.stderr}")


class Guest:
    """A QEMU with four disks; the memory and the images can be read from here."""

    # device of the guest -> where it is mounted, what it is to the host
    DISKS = {"vda": ("/disk", "pci:0000:00:04.0"), "vdb": ("/small", "pci:0000:00:05.0"),
             "vdc": ("/xfs", "pci:0000:00:06.0"), "sda1": ("/scsi", "scsi:0000:00:07.0/0:3:2")}

    def __init__(self, lab, guests, options):
        self.lab = lab
        self.serial = os.path.join(lab.dir, "serial.log")
        self.agent = os.path.join(lab.dir, "agent.sock")
        self._images()
        monitor = os.path.join(lab.dir, "qmp")
        append = read_text(os.path.join(guests, "append")).strip()
        args = [godwit_lab.QEMU, "-accel", "tcg", "-display", "none", "-nodefaults", "-no-reboot",
                "-machine", f"q35,memory-backend=ram,max-ram-below-4g={LOW_MEMORY}", "-m", f"{MEMORY // MIB}M",
                "-object", f"memory-backend-memfd,id=ram,size={MEMORY},share=on",
                "-serial", f"file:{self.serial}", "-qmp", f"unix:{monitor},server=on,wait=off",
                "-kernel", os.path.join(guests, "vmlinuz"), "-initrd", os.path.join(guests, "agent.img"),
                "-append", f"{append} gw.disk=rw gw.agent {options}",
                "-netdev", f"user,id=n,net=10.77.0.0/24,host=10.77.0.1,hostfwd=tcp:{EXEC[0]}:{EXEC[1]}-10.77.0.2:7001",
                "-device", "virtio-net-pci,netdev=n,romfile=,addr=2",
                "-device", "virtio-serial-pci,addr=3",
                "-chardev", f"socket,id=g,path={self.agent},server=on,wait=off",
                "-device", "virtserialport,chardev=g,name=org.godwit.agent.0"]
        for slot, disk in enumerate(("vda", "vdb", "vdc"), 4):
            args += ["-drive", f"id={disk},file={self.image(disk)},format=raw,if=none,cache=unsafe,discard=unmap",
                     "-device", f"virtio-blk-pci,drive={disk},addr={slot}"]
        args += ["-device", "virtio-scsi-pci,id=s,addr=7",
                 "-drive", f"id=sda,file={self.image('sda1')},format=raw,if=none,cache=unsafe",
                 "-device", "scsi-hd,drive=sda,bus=s.0,scsi-id=3,lun=2"]
        self.log = os.path.join(lab.dir, "qemu.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        lab.vms.append(self)
        self.qmp = Qmp(monitor)
        self.memory = self._memory()
        wait_for("the guest to be ready", self._is_ready)

    def image(self, disk):
        return os.path.join(self.lab.dir, f"{disk}.img")

    def _images(self):
        """Big files, small ones, and some that end within a page."""
        sizes = [12 * MIB, 5 * MIB + 100, 1000, PAGE, 3 * PAGE] + [random.Random(1).randrange(40000) for _ in range(40)]
        self.files = {disk: Files(os.path.join(self.lab.dir, disk), seed, sizes)
                      for seed, disk in enumerate(self.DISKS)}
        for disk, options in ("vda", ("-b", "4096")), ("vdb", ("-b", "1024")):
            command("mke2fs", "-q", "-t", "ext4", "-O", "encrypt", *options, "-d", self.files[disk].folder, self.image(disk), "96M")
        command("mkfs.xfs", "-q", "-d", f"file,name={self.image('vdc')},size=320m",
                "-p", self.files["vdc"].proto())
        # A partition, so that sectors count from the disk's beginning.
        with open(self.image("sda1"), "wb") as f:
            f.truncate(64 * MIB)
            f.seek(446)
            f.write(struct.pack("<B3xB3xII48x2s", 0, 0x83, 4096, 64 * MIB // 512 - 4096, b"\x55\xaa"))
        command("mke2fs", "-q", "-t", "ext4", "-E", f"offset={4096 * 512}", "-d", self.files["sda1"].folder,
                self.image("sda1"), "60M")

    def _is_ready(self):
        check(self.process.poll() is None, f"QEMU has ended: {read_text(self.log)}")
        return "godwit-guest: ready" in read_text(self.serial)

    def _memory(self):
        folder = f"/proc/{self.process.pid}/fd"
        for fd in os.listdir(folder):
            if "memory-backend-memfd" in os.readlink(os.path.join(folder, fd)):
                with open(os.path.join(folder, fd), "rb") as f:
                    return mmap.mmap(f.fileno(), MEMORY, prot=mmap.PROT_READ)
        raise Failure("QEMU has no memfd")

    def page(self, frame):
        """The content of a page frame; None if there is no memory."""
        at = frame * PAGE
        if at >= 1 << 32:
            at += LOW_MEMORY - (1 << 32)
        elif at >= LOW_MEMORY:
            return None
        return self.memory[at:at + PAGE] if at + PAGE <= MEMORY else None

    def shell(self, line):
        """What a line of shell prints in the guest."""
        with socket.create_connection(EXEC, 20 * godwit_lab.PATIENCE) as s:
            s.sendall(line.encode() + b"\n")
            output = b""
            while data := s.recv(65536):
                output += data
        return output.decode()

    def done(self, line):
        """The same for one that must succeed."""
        output = self.shell(f"({line}) && echo DONE")
        check(output.endswith("DONE\n"), f"{line}: {output}")
        return output[:-5]

    def port(self):
        return self.lab.closing(Port(self.agent, 60 * godwit_lab.PATIENCE))

    def report(self):
        port = self.port()
        try:
            return port.ask()
        finally:
            port.close()

    def compare(self, report):
        """(digests of the pages that are as claimed, by disk; what is not)."""
        right, wrong = {disk: set() for disk in self.DISKS}, []
        devices = {text: disk for disk, (_, text) in self.DISKS.items()}
        for text, sectors in report.disks.values():
            check(text in devices, f"a disk {text}")
            size = os.stat(self.image(devices[text])).st_size
            check(sectors * 512 == size, f"{text} has {sectors} sectors, and is {size} bytes")
        images = {disk: open(self.image(disk), "rb") for disk in self.DISKS}
        for frame, text, at in report.pages():
            disk, page = devices[text], self.page(frame)
            check(page is not None, f"a claim of frame {frame:#x}, which is no memory")
            if page == os.pread(images[disk].fileno(), PAGE, at):
                right[disk].add(digest(page))
            else:
                wrong.append((hex(frame), text, at))
        for image in images.values():
            image.close()
        return right, wrong

    # What the lab asks of each of its VMs after a test, and at the end.
    host = "this one"
    paused = True

    def check_console(self):
        alarms = [line for line in self.shell("dmesg").splitlines() if ALARM.search(line)]
        check(not alarms, f"the guest's kernel says {alarms}")

    def stop(self):
        self.lab.vms.remove(self)
        self.done("umount /xfs /small /scsi /disk")
        self.qmp.close()
        self.process.terminate()
        self.process.wait()
        self.memory.close()


class WithoutModule(Group):
    """The agent finds the pages itself."""

    weight = 40
    timeout = 120
    options = ""
    source = SELF
    mkguest = ("--agent", GUEST)

    def setup(self):
        check(shutil.which("mkfs.xfs"), "these tests need the package xfsprogs")
        self.machine = Guest(self.lab, self.mkguest[-1], self.options)
        for disk, (folder, _) in self.machine.DISKS.items():
            if folder != "/disk":
                kind = "xfs" if folder == "/xfs" else "ext4"
                self.machine.done(f"mkdir {folder} && mount -t {kind} /dev/{disk} {folder}")
        self.title = f"{type(self).__name__}, {self.machine.shell('uname -r').strip()}"

    def read_all(self):
        folders = " ".join(folder for folder, _ in self.machine.DISKS.values())
        self.machine.done(f"find {folders} -type f -exec cat {{}} + >/dev/null")

    def right(self, what=""):
        """A report of a quiet guest, in which every claim is right: the pages' digests by disk."""
        began = time.monotonic()
        report = self.machine.report()
        took = time.monotonic() - began
        check(report.source == self.source, f"a report of source {report.source}")
        right, wrong = self.machine.compare(report)
        check(not wrong, f"{what}: {len(wrong)} wrong claims: {wrong[:5]}")
        pages = sum(run[1] for run in report.runs)
        print(f"{self.title}: {what}: {pages} pages in {len(report.runs)} runs, {took:.3f} s, "
              f"{took * 1024 * MIB / MEMORY:.3f} s/GiB", flush=True)
        return right

    def test_what_was_read_is_claimed(self):
        self.read_all()
        right = self.right("what was read")
        for disk, files in self.machine.files.items():
            expected = files.all()
            share = len(expected & right[disk]) / len(expected)
            check(share >= 0.99, f"{share:.2%} of what was read from {disk} is claimed")

    def test_reading_leaves_the_cache_as_it_is(self):
        """A file of which some pages are cached has no more of them after a report."""
        self.machine.done("sync; echo 3 >/proc/sys/vm/drop_caches; "
                        "dd if=/disk/f0 of=/dev/null bs=4096 skip=100 count=1 2>/dev/null")
        before = self.right("after one page")["vda"] & self.machine.files["vda"].digests["f0"]
        check(0 < len(before) < 3000, f"{len(before)} pages were read ahead")
        after = self.right("again")["vda"] & self.machine.files["vda"].digests["f0"]
        check(after == before, f"{len(before)} pages became {len(after)}")

    def test_what_was_written_is_claimed_once_it_is_on_the_disk(self):
        for folder, disk in ("/disk", "vda"), ("/small", "vdb"), ("/xfs", "vdc"):
            self.machine.done(f"cat /scsi/f0 >{folder}/new; sync")
            expected = self.machine.files["sda1"].digests["f0"]
            right = self.right(f"written to {folder}")
            share = len(expected & right[disk]) / len(expected)
            check(share >= 0.95, f"{share:.2%} of what was written to {disk} is claimed")
            self.machine.done(f"rm {folder}/new")

    def test_deleted_files(self):
        self.read_all()
        self.machine.done("rm /disk/f1 /xfs/f1; sync")
        right = self.right("deleted")
        for disk in "vda", "vdc":
            still = right[disk] & self.machine.files[disk].digests["f1"]
            check(not still, f"{len(still)} pages of a deleted file are claimed")

    def test_journalled_data(self):
        """Its pages are clean long before they are where the file's blocks are."""
        self.machine.done("umount /small; mount -t ext4 -o data=journal,commit=300 /dev/vdb /small")
        # They become clean when they are written back, which is to say to a transaction that goes on.
        self.machine.done("cd /proc/sys/vm; cp dirty_expire_centisecs dirty_writeback_centisecs /tmp/; sync; "
                        "echo 1 >dirty_expire_centisecs; echo 1 >dirty_writeback_centisecs; "
                        "cat /scsi/f0 >/small/new; "
                        "while [ $(sed -n 's/^Dirty: *//p' /proc/meminfo | cut -d' ' -f1) -gt 1000 ]; do sleep 0.1; done; "
                        "cp /tmp/dirty_expire_centisecs /tmp/dirty_writeback_centisecs .")
        right = self.right("data=journal")
        check(self.source == MODULE or not right["vdb"], "the agent cannot know which of them are")
        self.machine.done("umount /small; mount -t ext4 /dev/vdb /small; cat /small/new >/dev/null")
        right = self.right("data=ordered")
        expected = self.machine.files["sda1"].digests["f0"]
        check(len(expected & right["vdb"]) >= 0.99 * len(expected), "nothing is claimed afterwards")
        self.machine.done("rm /small/new")

    def test_volumes(self):
        """Of a volume of LVM nothing is claimed, though each page of it lies on a disk somewhere."""
        self.machine.done("umount /small && linear volume /dev/vdb && mount -t ext4 /dev/dm-0 /small && "
                          "cat /small/f* /disk/f0 >/dev/null")
        right = self.right("a volume")
        check(not right["vdb"], f"{len(right['vdb'])} pages of a volume are claimed")
        f0 = self.machine.files["vda"].digests["f0"]
        check(len(f0 & right["vda"]) >= 0.95 * len(f0), "nor is what lies beside it")
        self.machine.done("umount /small && linear volume && mount -t ext4 /dev/vdb /small")

    def test_encrypted_files(self):
        """They are plain in memory, and not on the disk."""
        for folder, disk in ("/disk", "vda"), ("/small", "vdb"):
            self.machine.done(f"mkdir {folder}/secret && encrypt {folder}/secret && cd {folder}/secret && "
                              "cat /scsi/f0 >new && sync && cat new /disk/f0 >/dev/null")
            right = self.right(f"encrypted on {folder}")
            plain = right[disk] & self.machine.files["sda1"].digests["f0"]
            check(not plain, f"{len(plain)} pages of an encrypted file are claimed")
            f0 = self.machine.files["vda"].digests["f0"]
            check(len(f0 & right["vda"]) >= 0.95 * len(f0), "nor is what lies beside it")
            self.machine.done(f"rm -r {folder}/secret")

    def test_while_files_change(self):
        """Claims are hints then. But they are well formed, the kernel does not complain, and it passes."""
        self.machine.done("mkdir /disk/churn /small/churn /xfs/churn; run churn:/disk/churn; "
                        "run churn:/small/churn; run churn:/xfs/churn")
        console = self.machine.serial
        wait_for("the load", lambda: read_text(console).count("churn: started") >= 3)
        claims = bad = 0
        for _ in range(6):
            begun = len(re.findall(r"churn: \d", read_text(console)))
            report = self.machine.report()
            right, wrong = self.machine.compare(report)
            claims += sum(run[1] for run in report.runs)
            bad += len(wrong)
            wait_for("the load to go on", lambda: len(re.findall(r"churn: \d", read_text(console))) > begun)
        check(claims, "nothing was claimed")
        print(f"{self.title}: under load {bad} of {claims} claims were wrong when they were looked at", flush=True)
        self.machine.done("killall churn; while pidof churn; do sleep 0.1; done; sync")
        self.read_all()
        self.right("after the load")
        self.machine.done("rm -r /disk/churn /small/churn /xfs/churn")

    def test_hosts_come_and_go(self):
        """In the middle of a request or of an answer; the next one is answered."""
        chance = random.Random(7)
        for _ in range(30):
            port = self.machine.port()
            request = REQUEST.pack(ASK, chance.getrandbits(64), 1, 1, 0)
            port.send(chance.choice((request, request * 2, request[:chance.randrange(1, 32)], b"x" * 100)))
            if chance.randrange(2):
                port.request()
                try:
                    port.socket.recv(chance.randrange(1, 5000))
                except Gone:
                    pass
            port.close()
        self.right("after 30 hosts")

    def test_a_host_that_does_not_read(self):
        """Answers pile up until the agent has to wait; it hears the next request nevertheless."""
        def pile_up():
            port = self.machine.port()
            for _ in range(200):
                number = port.request()
                time.sleep(0.01)  # so that it begins to answer many of them
            return port, number
        port, number = pile_up()
        port.answer(number)
        port.close()
        pile_up()[0].close()
        self.right("after a host that did not read")

    def test_requests(self):
        port = self.machine.port()
        for version, kind in (2, 1), (1, 2), (1 << 31, 7):
            try:
                port.answer(port.request(version, kind))
                raise Failure(f"version {version}, kind {kind} is answered")
            except Refused as e:
                check(e.version == 1 and str(version) in str(e), f"version {e.version}: {e}")
        # What looks like the beginning of one, and one that is cut, before a whole one.
        for before in b"GWAGENT", b"GWAGENT?", REQUEST.pack(ASK, 1, 1, 1, 0)[:27], b"\0" * 999, ASK * 3:
            port.send(before)
            port.ask()
        # The second of two counts, or both do if the first was answered meanwhile.
        port.request()
        port.ask()

    def test_silence(self):
        """Who is not asked sleeps, whether or not a host is there."""
        def activity():
            return self.machine.done("cat /proc/$(pidof godwit-agent)/status | grep ctxt; "
                                   "cut -d' ' -f14,15 /proc/$(pidof godwit-agent)/stat")
        self.machine.report()
        port = self.machine.port()
        port.ask()
        for what in "with", "without":
            # The edge of the host's leaving may still be under way.
            wait_for("silence", lambda: activity() == activity(), 5)
            before = activity()
            time.sleep(2)
            check(activity() == before, f"{what} a host the agent is busy: {before}, {activity()}")
            port.close()

    def test_once(self):
        """What a user sees is a whole stream."""
        said = self.machine.done("godwit-agent --once /tmp/stream; wc -c </tmp/stream; rm /tmp/stream")
        found = re.search(r"(\d+) pages in (\d+) runs.*\n(\d+)\n", said)
        check(found and int(found[1]) >= int(found[2]) > 0, said)
        check(int(found[3]) > 16 * int(found[2]), said)
        check("without the kernel module" in said or self.source == MODULE, said)


class WithModule(WithoutModule):
    """The agent carries what the module tells."""

    options = "gw.module"
    source = MODULE


class WithoutModuleOnDebian13(WithoutModule):
    """Linux 6.12, where files have large folios."""

    mkguest = ("--suite", "trixie", "--agent", os.path.join(GUEST, "debian13"))


class WithModuleOnDebian13(WithModule):
    """The same source of the module."""

    mkguest = ("--suite", "trixie", "--agent", os.path.join(GUEST, "debian13"))


# A group has the tests that it names itself: here all have the same.
for _group in WithModule, WithoutModuleOnDebian13, WithModuleOnDebian13:
    for _name in tests_of(WithoutModule):
        setattr(_group, _name, getattr(WithoutModule, _name))
del _group, _name
