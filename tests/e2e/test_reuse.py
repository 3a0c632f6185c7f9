# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that comes back finds its memory there; and whatever is wrong with it, none of it is used."""

import json
import os
import re
import signal

from godwit_lab import MIB, check, read_text, wait_for
from godwit_runner import Group

PAGE = 4096
IMAGES = "1G"


def data_pages(result):
    """Pages with data of the move's first round, by what became of them."""
    pages = result["godwit"]["pages"]
    return sum(pages[key] for key in ("reused", "patched", "duplicate", "delta", "compressed", "raw"))


def reused(result):
    """The share of its pages that did not travel."""
    return result["godwit"]["pages"]["reused"] / data_pages(result)


def nothing_reused(result):
    pages = result["godwit"]["pages"]
    check(pages["reused"] == pages["patched"] == 0 and result["godwit"]["reuse"]["departure"] == 0,
          f"reused what cannot be known: {result['godwit']}")
    return result


class Two(Group):
    """A guest with 32 MiB that it leaves alone, and 4 that it writes all the time."""

    weight = 60
    run, args, memory = ("memtest:4", "fill:32"), (), "128M"

    def setup(self):
        self.a = self.lab.host("a", images=IMAGES)
        self.b = self.lab.host("b", images=IMAGES)
        self.vm = self.lab.vm(memory=self.memory, run=self.run, args=self.args).boot(self.a)
        self.vm.wait_line(r"fill: filled")

    def other(self):
        return self.b if self.vm.host is self.a else self.a

    def move(self, *options):
        return self.vm.move(self.other(), "--compress", "none", *options)

    def there_and_back(self):
        """So that both hosts keep what they can."""
        self.move()
        return self.move()


class There(Two):
    """And back, in good weather."""

    def begin(self, to):
        """A move that goes on until it is ended: even the few pages that travel take long."""
        command = self.vm.migrate(to.address, "--max-bandwidth", "100K", "--downtime-limit", "25",
                                  "--compress", "none")
        wait_for("the move to begin", lambda: self.vm.host.status("t")["status"] == "active")
        return command

    def test_back(self):
        first = nothing_reused(self.move())
        image = self.a.images()["t"]
        check(image["departure"] == 1 and not image["pinned"], f"image {image}")
        check(32 * MIB < image["bytes"] < 128 * MIB, f"image {image}")
        second = self.move()
        check(reused(second) > 0.7, f"{second['godwit']}")
        check(second["ram"]["transferred"] < 0.3 * first["ram"]["transferred"],
              f"{second['ram']} after {first['ram']}")
        check(second["godwit"]["reuse"]["departure"] == 1, f"{second['godwit']['reuse']}")
        own = second["godwit"]
        check(own["reuse"]["page-bytes-saved"] == own["pages"]["reused"] * PAGE and
              own["reuse"]["block-bytes-saved"] ==
              own["pages"]["patched"] * PAGE - own["bytes"]["patched"], f"{own}")
        check("t" not in self.a.images(), "the image is there still, beside its VM")

    def test_text(self):
        """What a person sees of it."""
        self.there_and_back()
        home, to = self.vm.host, self.other()
        out = home.godwit("images").ok().out
        check(re.search(r"^NAME +LEFT", out, re.M) and not re.search(r"^t ", out, re.M), out)
        out = to.godwit("images").ok().out
        check(re.search(r"^t +.* memory ", out, re.M), out)
        result = self.vm.migrate(to.address).finish().ok()
        check(re.search(r" rounds, \d+(\.\d+)? MiB reused, downtime ", result.out), result.out)
        self.vm.arrived(to)

    def test_ten_times(self):
        self.there_and_back()
        for _ in range(10):
            result = self.move()
            check(reused(result) > 0.7, f"{result['godwit']}")

    def test_switched_off(self):
        """--no-reuse uses nothing, and leaves nothing."""
        self.there_and_back()
        home, to = self.vm.host, self.other()
        nothing_reused(self.move("--no-reuse"))
        check(not home.images() and not to.images(), f"{home.images()}, {to.images()}")
        nothing_reused(self.move())
        nothing_reused(self.move("--hash", "sha1"))

    def test_cancelled(self):
        """What an arrival that failed has overwritten is absent, the rest is of use."""
        self.there_and_back()
        to = self.other()
        command = self.begin(to)
        command.signal(signal.SIGINT)
        command.finish().failed("cancelled")
        wait_for("the arrival to be gone", lambda: not os.path.exists(to.dir("t")))
        check("t" in to.images(), "what was taken of the image was not given back")
        self.vm.lives()
        result = self.move()
        check(reused(result) > 0.6, f"{result['godwit']}")
        # Its tracker was asked in vain, so all was looked at; now it is watched again.
        result = self.move()
        check(reused(result) > 0.7, f"{result['godwit']}")

    def test_worker_killed(self):
        """The same, when the destination's worker is killed."""
        self.there_and_back()
        to = self.other()
        command = self.begin(to)
        os.kill(to.worker(), signal.SIGKILL)
        command.finish().failed("destination")
        wait_for("the arrival to be gone", lambda: not os.path.exists(to.dir("t")))
        check("t" in to.images(), "what was taken of the image was not given back")
        self.vm.lives()
        result = self.move()
        check(reused(result) > 0.6, f"{result['godwit']}")

    def test_daemons_restarted(self):
        """Images, ledgers and the tracker do not depend on godwitd."""
        self.there_and_back()
        for host in (self.a, self.b):
            host.stop()
            host.start()
        result = self.move()
        check(reused(result) > 0.7, f"{result['godwit']}")

    def test_paused(self):
        """Between two moves in a row it wrote nothing: nothing but its device state travels."""
        self.there_and_back()
        qmp = self.lab.closing(self.vm.qmp())
        qmp.call("stop")
        qmp.close()
        self.vm.paused = True
        self.vm.rests()
        for _ in range(2):
            to = self.other()
            result = self.vm.migrate(to.address, "--json").finish().ok().json()
            self.vm.arrived(to)
        check(result["ram"]["transferred"] < MIB, f"{result}")
        self.vm.paused = False
        qmp = self.lab.closing(self.vm.qmp())
        qmp.call("cont")
        self.vm.lives()


class Direct(Two):
    """The same with direct I/O, that no tracker sees, and a balloon."""

    run, memory = ("memtest:4", "fill:32", "diskio:/dev/vda:4"), "256M"

    def setup(self):
        image = os.path.join(self.lab.dir, "disk.img")
        with open(image, "wb") as f:
            f.truncate(16 * MIB)
        self.args = ("-drive", f"file={image},format=raw,if=virtio,cache=none",
                     "-device", "virtio-balloon-pci,id=balloon")
        super().setup()

    def test_there_and_back(self):
        self.there_and_back()
        for _ in range(4):
            result = self.move()
            check(reused(result) > 0.6, f"{result['godwit']}")

    def test_balloon(self):
        """Pages that are given back while it is here are zero when it comes there."""
        self.there_and_back()
        for size in (160, 256, 200, 256):
            qmp = self.lab.closing(self.vm.qmp())
            qmp.call("balloon", value=size * MIB)
            wait_for(f"a balloon to leave {size} MiB",
                     lambda q=qmp, s=size: q.call("query-balloon")["actual"] == s * MIB)
            qmp.close()
            self.move()


class Ring(Group):
    """Three hosts in a ring, and crosswise."""

    weight = 50

    def test_ring(self):
        hosts = [self.lab.host(name, images=IMAGES) for name in "abc"]
        vm = self.lab.vm(run=("memtest:4", "fill:32", "flip:4:2")).boot(hosts[0])
        vm.wait_line(r"fill: filled")
        seen = {0}
        for number, i in enumerate((1, 2, 0, 1, 0, 2, 1, 2, 0)):
            result = vm.move(hosts[i], "--compress", "none")
            if i in seen:
                check(reused(result) > 0.6, f"{result['godwit']}")
                departure = result["godwit"]["reuse"]["departure"]
                check(0 < departure <= number, f"departure {departure} of {number}")
            else:
                nothing_reused(result)
            seen.add(i)
        check(result["godwit"]["pages"]["patched"] > 100, f"{result['godwit']}")
        vm.stop()


class Damaged(Two):
    """Images that are not what they were."""

    def leave(self):
        """It leaves for the other host, and what it left is returned: host, image folder, RAM file."""
        home = self.vm.host
        self.move()
        return home, os.path.join(home.run, "image", "t"), home.kept_file("t")

    def test_page_altered(self):
        self.leave()
        whole = reused(self.move())
        _, _, ram = self.leave()
        size = os.path.getsize(ram)
        with open(ram, "r+b") as f:
            for page in range(0, size // PAGE, 7):
                f.seek(page * PAGE + 1234)
                byte = f.read(1)
                f.seek(page * PAGE + 1234)
                f.write(bytes([byte[0] ^ 1]))
        result = self.move()
        # Those that were to be sent anyway are not asked for.
        altered = len(range(0, size // PAGE, 7))
        check(0.8 * altered < result["godwit"]["reuse"]["absent"] <= altered,
              f"{altered} altered: {result['godwit']['reuse']}")
        check(0.5 * whole < reused(result) < 0.95 * whole, f"{result['godwit']}")

    def test_ram_cut_short(self):
        _, _, ram = self.leave()
        os.truncate(ram, os.path.getsize(ram) // 2)
        result = self.move()
        check(result["ram"]["transferred"] > 8 * MIB, f"{result['ram']}")

    def test_ram_missing(self):
        _, _, ram = self.leave()
        os.unlink(ram)
        nothing_reused(self.move())

    def test_manifest(self):
        for damage in (lambda p: os.truncate(p, os.path.getsize(p) // 2), os.unlink,
                       lambda p: alter(p, '"departure": ', '"departure": 7'),
                       lambda p: alter(p, '"id": "', '"id": "ffff')):
            _, folder, _ = self.leave()
            damage(os.path.join(folder, "manifest.json"))
            nothing_reused(self.move())

    def test_ledger(self):
        for damage in (lambda p: os.truncate(p, os.path.getsize(p) // 2), os.unlink,
                       lambda p: flip(p, 20), lambda p: flip(p, os.path.getsize(p) // 2)):
            _, folder, _ = self.leave()
            damage(os.path.join(folder, "ledger"))
            nothing_reused(self.move())

    def test_ledger_of_the_arrival(self):
        """The VM does not know any more what it was when it came: all is sent, and a new history begins."""
        for damage in (lambda p: os.truncate(p, os.path.getsize(p) // 2), os.unlink,
                       lambda p: flip(p, os.path.getsize(p) // 2)):
            self.there_and_back()
            damage(os.path.join(self.vm.host.dir("t"), "ledger"))
            nothing_reused(self.move())

    def test_not_tracked(self):
        """Nobody knows what was written here: everything is looked at, and what is the same is reused."""
        self.there_and_back()
        path = os.path.join(self.vm.host.dir("t"), "vm.json")
        record = json.loads(read_text(path))
        watch = record["watch"]
        check(watch["since-arrival"] is True and watch["descriptors"], f"{record}")
        record["since-arrival"] = False
        with open(path, "w", encoding="utf-8") as f:
            json.dump(record, f)
        result = self.move()
        check(reused(result) > 0.7, f"{result['godwit']}")


def alter(path, old, new):
    text = read_text(path)
    check(old in text, f"no {old} in {text}")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.replace(old, new, 1))


def flip(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 0x10]))


class Others(Group):
    """Images of VMs that only have the same name; quotas."""

    weight = 50

    def setup(self):
        self.a = self.lab.host("a", images=IMAGES)
        self.b = self.lab.host("b", images=IMAGES)

    def boot(self, host, memory="128M"):
        vm = self.lab.vm("o", memory=memory, run=("memtest:4", "fill:16")).boot(host)
        vm.wait_line(r"fill: filled")
        return vm

    def test_started_anew(self):
        """The image of a VM that has ended is of no use to the next of its name, of whatever size."""
        for memory in ("128M", "192M"):
            vm = self.boot(self.a)
            vm.move(self.b)
            vm.stop()
            check("o" in self.a.images(), "no image")
            vm = self.boot(self.b, memory)
            nothing_reused(vm.move(self.a))
            check("o" in self.b.images() and "o" not in self.a.images(),
                  f"{self.a.images()}, {self.b.images()}")
            vm.stop()

    def test_started_where_the_image_is(self):
        vm = self.boot(self.a)
        vm.move(self.b)
        vm.stop()
        vm = self.boot(self.a)
        check("o" not in self.a.images(), "an image beside a VM of its name")
        nothing_reused(vm.move(self.b))
        vm.stop()

    def test_quota(self):
        """A host that keeps less than the VM has keeps what is worth most."""
        c = self.lab.host("c", images="24M")
        vm = self.boot(c)
        vm.move(self.b)
        wait_for("c to be within its quota", lambda: c.images()["o"]["bytes"] <= 24 * MIB)
        check(c.images()["o"]["bytes"] > 0, f"{c.images()}")
        result = vm.move(c)
        check(result["godwit"]["pages"]["reused"] > 1000, f"{result['godwit']}")
        check(result["godwit"]["reuse"]["absent"] > 1000, f"{result['godwit']}")
        vm.stop()
        self.lab.drop(c)

    def test_in_the_way(self):
        """A guest takes all of its memory where an image was, and lives; the VM of the image waits."""
        c = self.lab.host("c", "--memory-limit", "256M", images=IMAGES)
        vm = self.boot(c)
        vm.move(self.b)
        kept = c.images()["o"]["bytes"]
        other = self.lab.vm("p", memory="224M", run=("memtest:4", "fill:112")).boot(c)
        left = c.images().get("o", {"bytes": 0})["bytes"]
        check(left < kept and left <= 33 * MIB, f"of {kept} bytes {left} are kept beside 224 MiB")
        other.wait_line(r"fill: filled")
        check(c.state("p") == "running", "the guest died")
        vm.migrate(c.address).finish().failed("host 'c' has 32.0 MiB of memory for another VM",
                                              "'o' needs 128 MiB", "choose another host")
        check(self.b.state("o") == "running", "the guest does not run on")
        other.stop()
        vm.move(c)
        vm.stop()
        self.lab.drop(c)

    def test_untracked(self):
        """A host that does not watch its VMs compares all of their memory, and reuses as much."""
        c = self.lab.host("c", "--track-arrivals", "no", images=IMAGES)
        vm = self.boot(self.a)
        vm.move(c)
        record = json.loads(read_text(os.path.join(c.dir("o"), "vm.json")))
        check(record["watch"]["mode"] == "none", f"{record}")
        check(reused(vm.move(self.a, "--compress", "none")) > 0.5, "hardly anything reused")
        vm.stop()
        self.lab.drop(c)

    def test_disk(self):
        """What there is no memory for goes to disk, outlives godwitd, and comes back from there."""
        c = self.lab.host("c", "--image-disk", "1G", images="8M")
        vm = self.boot(c)
        vm.move(self.b)
        wait_for("the image to be on disk", lambda: c.images()["o"]["place"] == "disk")
        check(not os.path.exists(c.kept_file("o")), "memory is kept, too")
        c.stop()
        c.start()
        check(reused(vm.move(c, "--compress", "none")) > 0.5, "hardly anything reused")
        check("o" not in c.images(), "the image is on disk still")
        vm.stop()
        self.lab.drop(c)

    def test_no_quota(self):
        c = self.lab.host("c")
        vm = self.boot(c)
        vm.move(self.b)
        check(not c.images(), f"{c.images()}")
        check(not os.path.exists(os.path.join(c.run, "ram", "kept")), "memory is kept")
        vm.move(c)
        vm.stop()
        self.lab.drop(c)
