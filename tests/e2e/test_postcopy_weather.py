# SPDX-License-Identifier: GPL-2.0-or-later
"""Post-copy over links that are slow or silent, of guests of every kind, again and again."""

import json
import mmap
import os
import re
import struct
import time

from godwit_lab import MIB, check, kill, read_text, wait_for
from godwit_runner import Group
from godwit_wire import Proxy
from test_paging import PagingSource
from test_postcopy import SLOW, PostCopy

GIB = 1 << 30
STEP = 0x9e3779b97f4a7c15   # from word to word of a page of memtest's
NOW = ("--postcopy", "now")
SOON = ("--postcopy", "auto", "--postcopy-after", "1")   # after a round


def count(vm, pattern):
    return len(re.findall(pattern, vm.read()))


def processors(vm):
    """Folders of the threads of its virtual processors."""
    folder = f"/proc/{vm.pid()}/task"
    return [task for task in (os.path.join(folder, tid) for tid in os.listdir(folder))
            if read_text(f"{task}/comm").startswith("CPU ")]


def waiting(vm):
    """How many of them wait for a page."""
    return sum("handle_userfault" in read_text(f"{task}/stack") for task in processors(vm))


def in_huge_pages(path):
    """Of the data in a file how many bytes the kernel has given in huge pages."""
    huge = 2 * MIB
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as m:
        at, size = 0, len(m)
        while at < size:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:   # ENXIO: only holes follow
                break
            m.seek(at)
            m.read_byte()   # now it is mapped as it lies there
            at = (at // huge + 1) * huge
        maps = read_text("/proc/self/smaps").split("VmFlags")
    return sum(int(n) * 1024 for one in maps if path in one
               for n in re.findall(r"ShmemPmdMapped: +(\d+) kB", one))


def seconds_run(vm):
    """How long they have run, the busiest first."""
    texts = [read_text(f"{task}/stat") for task in processors(vm)]
    ticks = [sum(map(int, text[text.rindex(")") + 2:].split()[11:13])) for text in texts]
    return [n / os.sysconf("SC_CLK_TCK") for n in sorted(ticks, reverse=True)]


class Together(PostCopy):
    """Guests of which several workloads count their passes."""

    def together(self, vm, n):
        """@n workloads, each of which may lose no pass and do none twice."""
        def whole():
            numbers = [int(i) for i in vm.passes.findall(vm.read())]
            times = [numbers.count(i) for i in range(1, max(numbers, default=0) + 1)]
            check(times == sorted(times, reverse=True) and (not times or times[0] <= n),
                  f"passes of {vm.name} are not consecutive: {numbers}")
        vm.check_console = whole
        return vm


class Far(Together):
    """Two hosts and the link between them."""

    grace = 20

    def setup(self):
        self.net = self.lab.network()
        self.a = self.lab.host("a", address="192.168.77.1:7373", namespace=self.net.namespace("a"))
        self.b = self.lab.host("b", address="192.168.77.2:7373", namespace=self.net.namespace("b"))
        self.boot()

    def boot(self):
        self.vm = self.lab.vm(memory="160M", run=("memtest:24",)).boot(self.a)

    def silent(self, seconds):
        """Nothing gets through for so long. How often that was taken for the end."""
        command, source, to = self.leave(*NOW, "--max-bandwidth", "16M")
        lost = self.lost(source)
        self.net.cut()
        began = time.monotonic()
        if seconds > 5:
            for host in (source, to):
                wait_for("paused", lambda h=host: h.status("t")["status"] == "postcopy-paused")
            left = to.status("t")["ram"]["remaining"]
            print(f"paused after {time.monotonic() - began:.1f} s, {left / MIB:.1f} MiB left")
            check(0 < left == to.status("t")["ram"]["remaining"], "it came through a cut link")
        time.sleep(max(0, began + seconds - time.monotonic()))
        self.net.mend()
        mended = time.monotonic()
        result = command.finish().ok().json()
        print(f"{time.monotonic() - mended:.1f} s after the link was mended")
        check(result["status"] == "completed", f"{result}")
        self.whole(source, to)
        return self.lost(source) - lost


class Silent(Far):
    """The link loses every packet, and tells nobody."""

    weight = 40

    def test_a_second(self):
        """Is nobody's end."""
        check(self.silent(1) == 0, "a second of silence was taken for the end")

    def test_until_noticed(self):
        check(self.silent(6) > 0, "it was paused, and nobody said so")


class Minutes(Far):
    """Likewise, for as long as nobody waits in a test suite."""

    soak = True
    timeout = 1200

    def test_a_minute(self):
        check(self.silent(60) > 0, "it was paused, and nobody said so")

    def test_ten_minutes(self):
        check(self.silent(600) > 0, "it was paused, and nobody said so")


class Shaped(Far):
    """A guest that writes faster than the link takes it."""

    weight = 40

    def boot(self):
        self.vm = self.lab.vm(memory="160M", run=("memtest:8", "wset:24:0:0")).boot(self.a)
        self.vm.wait_line("wset: filled")

    def shaped(self, rate, most, *options):
        self.net.shape(rate)
        result = self.vm.move(self.other(), *options, "--downtime-limit", "120")
        check(result["godwit"]["mode"] == "hybrid", f"{result['godwit']}")
        check(result["total-time"] < most * 1000, f"{result['total-time']} ms")
        print(f"{rate}: {result['total-time']} ms, {result['ram']['transferred'] / MIB:.0f} MiB")

    def test_100_mbit(self):
        self.shaped("100mbit", 120, "--postcopy", "auto")

    def test_1_gbit(self):
        """On a busy machine it writes no faster than that, and rounds would get there."""
        self.shaped("1gbit", 60, *SOON)


class Kinds(Together):
    """Other kinds of guest, one at a time."""

    weight = 60

    def setup(self):
        self.a, self.b = self.lab.host("a"), self.lab.host("b")
        self.vm = None

    def end(self):
        self.vm.stop()
        self.vm = None

    def test_four_processors(self):
        """All touch all of their memory at once, while it is pushed: to and fro."""
        self.vm = self.together(self.lab.vm("four", memory="192M", run=("memtest:12",) * 4,
                                            args=["-smp", "4"]), 4).boot(self.a)
        for options in (NOW, SOON, NOW):
            result = self.vm.move(self.other(), *options)
            record = json.loads(read_text(os.path.join(self.vm.host.dir("four"), "vm.json")))
            check(len(record["watch"]["descriptors"]) == 4, f"{record['watch']}")
            ram = result["ram"]
            check(ram["postcopy-requests"] > 0, f"{ram}")
            check(len(ram["postcopy-vcpu-latency"]) == 4, f"{ram}")
            check(options == SOON or sum(ns > 0 for ns in ram["postcopy-vcpu-latency"]) > 1,
                  f"the faults of one processor only: {ram}")
        self.end()

    def in_huge_pages(self, host):
        """Bytes of the guest's memory there that the kernel has given in huge pages."""
        folder = os.path.join(host.run, "ram", "vm", self.vm.name)
        return sum(in_huge_pages(os.path.join(folder, name)) for name in os.listdir(folder))

    def test_blocks_beyond_4_gib(self):
        """Two backends, most of which nobody has written; huge pages under both."""
        self.vm = self.lab.vm("large", memory="3G", run=("memtest:16",), args=[
            "-m", "slots=2,maxmem=8G", "-object", "memory-backend-ram,id=extra,size=2G",
            "-device", "pc-dimm,id=plug,memdev=extra"]).boot(self.a)
        check(self.in_huge_pages(self.a), "no huge pages where it was started")
        for _ in range(2):
            to = self.other()
            self.vm.move(to, *NOW)
            ends = [b["address"] + b["size"] for b in to.list()["large"]["blocks"]]
            check(len(ends) >= 3 and max(ends) > 4 * GIB, f"{ends}")
            check(os.listdir(os.path.join(to.run, "ram", "vm")) == ["large"], "the small ones")
            check(self.in_huge_pages(to), "no huge pages where it came")
        self.end()

    def test_balloon(self):
        """Inflated over older bytes of pages that are still to come."""
        self.vm = self.lab.vm("bal", memory="192M", run=("memtest:16",),
                              args=["-device", "virtio-balloon-pci"]).boot(self.a)
        command, source, to = self.leave(*SOON, "--max-bandwidth", "3M", "--compress", "none")
        qmp = self.lab.closing(self.vm.qmp())
        qmp.call("balloon", value=96 * MIB)
        wait_for("the balloon", lambda: qmp.call("query-balloon")["actual"] < 184 * MIB)
        check(to.state("bal") == "postcopy", "the balloon came too late")
        wait_for("all of it", lambda: qmp.call("query-balloon")["actual"] == 96 * MIB)
        qmp.call("balloon", value=192 * MIB)
        qmp.close()
        command.finish().ok()
        self.whole(source, to)
        self.end()

    def test_direct_io(self):
        """Disks read past the page cache into pages that are missing, by all ways there are."""
        args = []
        for i, aio in enumerate(("threads", "native", "io_uring")):
            image = os.path.join(self.lab.dir, f"{aio}.img")
            with open(image, "wb") as f:
                f.truncate(8 * MIB)
            args += ["-drive", f"file={image},format=raw,if=virtio,cache=none,aio={aio}"]
        disks = [f"diskio:/dev/vd{i}:2" for i in "abc"]
        self.vm = self.lab.vm("disk", memory="224M", run=("memtest:8", *disks),
                              args=args).boot(self.a)
        for options in (NOW, SOON):
            n = count(self.vm, r"diskio: pass \d+ ok")
            self.vm.move(self.other(), *options)
            wait_for("its disks", lambda: count(self.vm, r"diskio: pass \d+ ok") > n + 6)
        self.end()

    def test_locked(self):
        """Memory that QEMU maps before the guest runs faults all the same."""
        self.vm = self.lab.vm("lock", memory="128M", run=("memtest:16",), args=[
            "-overcommit", "mem-lock=on", "-mem-prealloc"]).boot(self.a)
        result = self.vm.move(self.b, *NOW)
        check(result["ram"]["postcopy-requests"] > 0, f"{result['ram']}")
        self.end()

    def test_kvm(self):
        self.vm = vm = self.lab.kvm_vm().boot(self.a)
        command, source, to = self.leave(*SLOW, "--compress", "none")
        result = command.finish().ok().json()
        check(result["ram"]["postcopy-requests"] > 0, f"{result['ram']}")
        self.whole(source, to)
        for options in (SOON, NOW):
            vm.move(self.other(), *options)
        self.end()


class Waiting(Group):
    """Who waits for what, from a source of the test's."""

    timeout = 120
    weight = 20

    def setup(self):
        self.a, self.b = self.lab.host("a"), self.lab.host("b")

    def boot(self, run, *args):
        vm = self.lab.vm("p", memory="128M", run=run,
                         args=["-name", "p,debug-threads=on", *args])
        vm.check_console = lambda: None
        vm.boot(self.a)
        return vm, PagingSource(self.a, vm, self.b)

    def whole(self, vm, source):
        source.push()
        check(source.complete.wait(100), f"not complete: {self.b.status('p')}")
        source.end()
        wait_for("the keeper to be done", lambda: not self.b.workers(), 10)
        self.a.godwit("stop", "p").ok()
        vm.lives()
        vm.stop()

    def test_two_on_one_page(self):
        """It is asked for once; it is pushed, and answered beside that."""
        vm, source = self.boot(("memtest:8", "memtest:8"), "-smp", "2")
        source.begin()
        source.switch_over()
        source.answer = False
        vm.settle(self.b)
        met = answered = 0

        def due():
            return [(first, n) for first, n in source.requested if first not in source.sent]

        def both():
            return waiting(vm) == 2 and sum(n for _, n in due()) == 1
        deadline = time.monotonic() + 50
        while met < 3 and time.monotonic() < deadline:
            wait_for("a fault", due, 20)
            meet = time.monotonic() + 0.1
            while not both() and waiting(vm) < 2 and time.monotonic() < meet:
                time.sleep(0.005)
            met += both()
            for first, n in due():
                source.send_pages(first, n, 1)
                source.send_pages(first, n, 0)   # crosses, and is dropped
                answered += n
        print(f"met at {met} of {answered} pages")
        check(met, "they never met")
        pages = [page for first, n in source.requested for page in range(first, first + n)]
        check(len(pages) == len(set(pages)), "a page was asked for twice")
        source.answer = True
        for first, n in due():
            source.send_pages(first, n, 0)
        self.whole(vm, source)

    def test_who_is_not_concerned(self):
        """One waits for what cannot come; the other runs on."""
        vm, source = self.boot(("memtest:8", "busy:1"), "-smp", "2")
        vm.wait_line("busy: filled")
        source.begin()
        source.qmp.call("stop")   # memtest writes no more of it
        source.withheld = {page for page in range(source.nr) if self.tested(source, page)}
        check(len(source.withheld) > 7 * MIB // 4096, f"{len(source.withheld)} pages of memtest")
        source.switch_over()
        vm.settle(self.b)
        source.push()
        wait_for("one to wait", lambda: waiting(vm) == 1)
        source.hang_up()
        wait_for("paused", lambda: self.b.status("p")["status"] == "postcopy-paused")
        most, least = seconds_run(vm)
        wait_for("the other to run on", lambda: seconds_run(vm)[0] > most + 0.3)
        check(seconds_run(vm)[1] <= least + 0.1 and waiting(vm) == 1, "both ran on")
        source.withheld = set()
        source.reconnect()
        self.whole(vm, source)

    def test_balloon(self):
        """Inflated and deflated where no page has come that was not asked for."""
        vm, source = self.boot(("memtest:8",), "-device", "virtio-balloon-pci")
        source.begin()
        source.switch_over()
        vm.settle(self.b)
        qmp = self.lab.closing(vm.qmp())
        for target in (100 * MIB, 128 * MIB):
            qmp.call("balloon", value=target)
            wait_for("the balloon", lambda t=target: qmp.call("query-balloon")["actual"] == t)
        qmp.close()
        vm.lives(1)
        check(self.b.state("p") == "postcopy", "the balloon came too late")
        self.whole(vm, source)

    @staticmethod
    def tested(source, page):
        """Whether memtest has written it (lab/guest/pattern.c)."""
        words = struct.unpack("<3Q", os.pread(source.ram, 24, page * 4096))
        return (words[1] - words[0]) % 2**64 == (words[2] - words[1]) % 2**64 == STEP


class Back(PostCopy):
    """A VM that comes back finds its memory there, and is there before it."""

    weight = 60

    def setup(self):
        self.a, self.b = self.lab.host("a", images="1G"), self.lab.host("b", images="1G")
        self.vm = self.lab.vm(memory="128M", run=("memtest:4", "fill:32")).boot(self.a)
        self.vm.wait_line("fill: filled")

    def test_ten_times(self):
        """By post-copy and by what may become it; what has not changed does not travel."""
        sent = []
        for i in range(10):
            result = self.vm.move(self.other(), "--compress", "none", *(SOON if i % 2 else NOW))
            sent.append(result["ram"]["transferred"] / MIB)
        print(" ".join(f"{mib:.1f}" for mib in sent))
        check(max(sent[2:]) < 0.5 * sent[0], f"MiB sent: {sent}")

    def interrupted(self, disturb):
        """By post-copy, @disturb()ed in the middle, and back by rounds alone."""
        proxy = self.lab.closing(Proxy(self.other().address))
        command, source, to = self.leave("--postcopy", "now", "--max-bandwidth", "2M",
                                         "--compress", "none", via=proxy.address)
        lost = self.lost(source)
        disturb(proxy, to)
        wait_for("the source to notice", lambda: self.lost(source) > lost)
        self.vm.lives(1)
        command.finish().ok()
        self.whole(source, to)
        self.lab.close()
        result = self.vm.move(self.other(), "--compress", "none")
        pages = result["godwit"]["pages"]
        print(f"{pages}")
        return pages["reused"] * 4096 / MIB

    def test_cut_and_back(self):
        check(self.interrupted(lambda proxy, to: proxy.cut()) > 32, "its memory was not reused")

    def test_pager_killed_and_back(self):
        check(self.interrupted(lambda proxy, to: kill(to.worker())) > 32,
              "its memory was not reused")
