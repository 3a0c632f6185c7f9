# SPDX-License-Identifier: GPL-2.0-or-later
"""How pages travel: every technique, alone and with the others, on guests that need it."""

import itertools
import os
import re

from godwit_lab import MIB, check, wait_for
from godwit_runner import Group

PAGE = 4096
FRAME = 32        # header of a frame
CHUNK = MIB       # what one PAGES frame is about
STAGES = ("zero", "same", "reused", "patched", "teleported", "duplicate", "delta", "compressed",
          "raw")
HASHES = ("gmac", "xxh3", "sha1", "md5", "crc32", "murmur3")
COMPRESSIONS = ("auto", "none", "lz4", "zstd")

# What a user can choose; True stands for a flag that is given.
CHOICES = {
    "--hash": HASHES,
    "--compress": COMPRESSIONS,
    "--delta-cache": ("0", "1M", "64M"),
    "--streams": ("1", "2", "8"),
    "--no-zero": (False, True),
    "--no-fake-dirty": (False, True),
    "--no-duplicate": (False, True),
}

# One technique at a time.
PLAIN = ("--delta-cache", "0", "--compress", "none", "--no-duplicate")


def pairs_of(row):
    return set(itertools.combinations(enumerate(row), 2))


def covering():
    """Few rows of CHOICES in which any two choices meet; the same rows each time."""
    rows = list(itertools.product(*CHOICES.values()))
    missing = set().union(*map(pairs_of, rows))
    while missing:
        best = max(rows, key=lambda row: len(pairs_of(row) & missing))
        missing -= pairs_of(best)
        yield dict(zip(CHOICES, best))


def words_of(row):
    """The command line of a row."""
    words = []
    for flag, value in row.items():
        if value:
            words += [flag] if value is True else [flag, value]
    return words


def accounted(result, streams):
    """Every page is counted once, every byte somewhere."""
    ram, own = result["ram"], result["godwit"]
    pages, sizes, rounds = own["pages"], own["bytes"], own["rounds"]
    check(len(rounds) == ram["dirty-sync-count"] >= 2, f"{ram['dirty-sync-count']} {rounds}")
    for r in rounds:
        check(r["pages"] == r["redirtied"] + r["same"] + r["sent"], f"round {r}")
    check(rounds[-1]["redirtied"] == 0, f"pages were left behind: {rounds[-1]}")
    for key in ("redirtied", "same"):
        check(pages[key] == sum(r[key] for r in rounds), f"{key}: {pages} {rounds}")
    handled = sum(r["same"] + r["sent"] for r in rounds)
    check(sum(pages[key] for key in STAGES) == handled, f"{handled} pages, {pages}")
    check(set(pages) == set(sizes) == {*STAGES, "deferred", "redirtied"}, f"{pages} {sizes}")
    check(sizes["same"] == 0, f"unchanged pages cost {sizes['same']} bytes")
    check(ram["duplicate"] == pages["zero"], f"{ram} {pages}")
    check(ram["normal"] == pages["raw"] + pages["compressed"], f"{ram} {pages}")
    check(ram["normal-bytes"] == PAGE * ram["normal"], f"{ram}")

    # Records in frames, a barrier of each stream in each round, and nothing else.
    wire, records = sum(r["wire-bytes"] for r in rounds), sum(sizes.values())
    frames, rest = divmod(wire - records, FRAME)
    barriers = len(rounds) * streams
    check(rest == 0 and barriers <= frames <= barriers + len(rounds) * ram["total"] // CHUNK,
          f"{wire} bytes in streams, {records} in records, {rounds}")
    beside = own["device-state-bytes"] + own["reuse"]["ledger-bytes"]
    check(0 < ram["transferred"] - wire - beside < 65536,
          f"{ram['transferred']} bytes transferred, {wire} in streams, {beside} of device state "
          "and ledger")


def check_passes(vm, *programs):
    """Nothing that they did was lost, or done twice."""
    for program in programs:
        numbers = [int(n) for n in re.findall(rf"{program}: pass (\d+) ok", vm.read())]
        check(numbers and numbers == list(range(1, len(numbers) + 1)),
              f"passes of {program} are not consecutive: {numbers}")


class Choices(Group):
    """One guest that gives every technique work, moved with all that can be chosen."""

    weight = 60
    programs = ("memtest", "same", "flip", "copier")

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")
        # Direct I/O means a quiesced round between the first and the last, and a comparison.
        image = os.path.join(self.lab.dir, "disk.img")
        with open(image, "wb") as f:
            f.truncate(MIB)
        self.vm = self.lab.vm(run=("memtest:4", "same:4", "flip:4:40", "copier:4"), args=[
            "-drive", f"file={image},format=raw,if=virtio,cache=none"])
        self.vm.boot(self.a)
        for program in self.programs:
            self.vm.wait_line(rf"{program}: pass \d+ ok")

    def other(self):
        return self.b if self.vm.host is self.a else self.a

    def test_all_pairs(self):
        total = dict.fromkeys(STAGES, 0)
        for row in covering():
            result = self.vm.move(self.other(), *words_of(row))
            accounted(result, int(row["--streams"]))
            check(len(result["godwit"]["rounds"]) > 2, f"rounds {result['godwit']['rounds']}")
            pages = result["godwit"]["pages"]
            for key, off in (("zero", row["--no-zero"]), ("same", row["--no-fake-dirty"]),
                             ("duplicate", row["--no-duplicate"]),
                             ("delta", row["--delta-cache"] == "0"),
                             ("compressed", row["--compress"] == "none")):
                check(not (off and pages[key]), f"{words_of(row)}, and yet {pages[key]} {key}")
            for key in STAGES:
                total[key] += pages[key]
            check_passes(self.vm, *self.programs)
        for key in ("zero", "same", "duplicate", "delta", "compressed", "raw"):
            check(total[key] > 100, f"hardly any page was {key}: {total}")

    def test_refused(self):
        """What cannot be chosen is named, with what can."""
        for words, texts in ((("--hash", "nonsense"), ("no hash 'nonsense'", *HASHES)),
                             (("--compress", "nonsense"),
                              ("no compression 'nonsense'", *COMPRESSIONS)),
                             (("--downtime-limit", "5"), ("--downtime-limit", "at least"))):
            self.vm.migrate(self.other().address, *words).finish().failed(*texts)
        result = self.vm.migrate(self.other().address, "--delta-cache", "much").finish()
        check(result.status == 2 and "much" in result.err, f"wrong usage: {result}")
        self.vm.lives()


class Guests(Group):
    """A guest for each technique, with a network slow enough for rounds to last."""

    weight = 60

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")

    def guest(self, *run, memory="128M"):
        """A guest with these workloads; the first one's passes show that it lives."""
        vm = self.lab.vm("g", memory=memory, run=run)
        vm.passes = re.compile(rf"{run[0].split(':')[0]}: pass (\d+) ok")
        vm.boot(self.a)
        for work in run[1:]:
            vm.wait_line(rf"{work.split(':')[0]}: filled")
        return vm

    def move(self, vm, *options):
        """To the other host; what it did."""
        result = vm.move(self.b if vm.host is self.a else self.a, "--streams", "2", *options)
        accounted(result, 2)
        return result["godwit"]

    def test_same(self):
        """All of 32 MiB is dirty all the time, and not a byte of it changes."""
        vm = self.guest("same:32")
        # Sent they take 0.8 s; looked at, 20 ms, or 100 on a machine with a load of 20.
        options = (*PLAIN, "--max-bandwidth", "40M", "--downtime-limit", "500")
        own = self.move(vm, *options)
        # Four to come within the limit, and as many cheap ones as there may be (converge.c).
        check(len(own["rounds"]) <= 4 + 8, f"rounds {own['rounds']}")
        check(own["pages"]["same"] > 7000, f"{own}")
        check(own["rounds"][-1]["sent"] < 1000, f"rounds {own['rounds']}")
        options += ("--no-fake-dirty",)
        vm.migrate(self.a.address, *options).finish().failed("writes memory faster than")
        own = self.move(vm, *options, "--downtime-limit", "3000")
        check(own["pages"]["same"] == 0, f"{own}")
        check(own["rounds"][-1]["sent"] > 7000, f"rounds {own['rounds']}")
        check(own["rounds"][-1]["wire-bytes"] > 7000 * PAGE, f"rounds {own['rounds']}")
        vm.stop()

    def test_flip(self):
        """One byte of each page of 16 MiB changes twice a second."""
        vm = self.guest("flip:16:32")
        options = ("--compress", "none", "--no-duplicate", "--max-bandwidth", "60M")
        own = self.move(vm, *options, "--downtime-limit", "100")
        pages, size = own["pages"]["delta"], own["bytes"]["delta"]
        check(len(own["rounds"]) > 2 and pages > 1000, f"{own}")
        check(size < 100 * pages, f"{size} bytes for {pages} pages that changed in a byte or two")
        own = self.move(vm, *options, "--downtime-limit", "3000", "--delta-cache", "0")
        check(own["pages"]["delta"] == 0, f"{own}")
        check(sum(r["wire-bytes"] for r in own["rounds"][1:]) > 1000 * PAGE, f"{own}")
        vm.stop()

    def test_copier(self):
        """8 MiB are overwritten by copies of other pages."""
        vm = self.guest("copier:16")
        options = ("--compress", "none", "--delta-cache", "0", "--max-bandwidth", "100M",
                   "--downtime-limit", "3000")
        own = self.move(vm, *options)
        pages, size = own["pages"]["duplicate"], own["bytes"]["duplicate"]
        check(pages > 1500, f"{own}")
        check(size < 100 * pages, f"{size} bytes for {pages} copies")
        own = self.move(vm, *options, "--no-duplicate")
        check(own["pages"]["duplicate"] == 0, f"{own}")
        vm.stop()

    def test_text(self):
        """24 MiB of text, by every method; auto finds out that the network is slow."""
        vm = self.guest("memtest:4", "text:24")
        text, total = 24 * MIB // PAGE, {}
        for method in COMPRESSIONS:
            # So slow that compression pays on the busiest machine.
            slow = ("--max-bandwidth", "10M", "--downtime-limit", "9000")
            own = self.move(vm, "--compress", method, *(slow if method == "auto" else ()))
            pages, size = own["pages"], own["bytes"]["compressed"]
            total[method] = sum(own["bytes"].values())
            if method == "none":
                check(pages["compressed"] == 0 and pages["raw"] > text, f"{own}")
                continue
            # Before auto knows, and between, when it makes sure, pages go as they are.
            check(pages["compressed"] > text / (4 if method == "auto" else 1), f"{method}: {own}")
            check(size < 0.7 * PAGE * pages["compressed"], f"{method}: {own}")
        check(total["lz4"] < 0.75 * total["none"] and total["zstd"] < 0.6 * total["none"] and
              total["auto"] < 0.9 * total["none"], f"bytes: {total}")
        vm.stop()

    def test_random(self):
        """48 MiB that no method makes smaller do not grow."""
        vm = self.guest("memtest:4", "fill:48")
        for method, more in (("lz4", ()), ("zstd", ()),
                             ("auto", ("--max-bandwidth", "100M", "--downtime-limit", "3000"))):
            own = self.move(vm, "--compress", method, *more)
            pages, sizes = own["pages"], own["bytes"]
            check(pages["raw"] > 0.9 * 48 * MIB // PAGE, f"{method}: {own}")
            full = pages["raw"] + pages["compressed"]
            check(sizes["raw"] + sizes["compressed"] <= 1.01 * PAGE * full, f"{method}: {own}")
        vm.stop()

    def second_round(self):
        now = self.a.status("g")
        return now if now["status"] == "active" and now["godwit"]["rounds"] else None

    def test_status(self):
        """While it goes on, its status tells the rounds that are over."""
        vm = self.guest("flip:16:64")
        command = vm.migrate(self.b.address, "--max-bandwidth", "20M", "--downtime-limit", "30",
                             *PLAIN, "--no-fake-dirty")
        now = wait_for("the second round", self.second_round, 20)
        own = now["godwit"]
        check(now["ram"]["dirty-sync-count"] == len(own["rounds"]), f"{now}")
        for r in own["rounds"]:
            check(r["pages"] == r["redirtied"] + r["same"] + r["sent"] > 0, f"round {r}")
            check(r["wire-bytes"] > 0 and r["ms"] > 0, f"round {r}")
        check(own["rounds"][0]["sent"] > 16 * MIB // PAGE, f"{now}")
        handled = sum(own["pages"][key] for key in STAGES)
        check(handled >= sum(r["same"] + r["sent"] for r in own["rounds"]), f"{now}")
        self.a.godwit("cancel", "g").ok()
        check(command.finish().status != 0, "cancelled, and yet completed")
        vm.lives()
        vm.stop()
