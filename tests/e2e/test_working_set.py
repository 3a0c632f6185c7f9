# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that wait because the guest is expected to write them again: nothing is lost by it."""

from godwit_lab import check, wait_for
from godwit_runner import Group
from godwit_wire import HOLD, Proxy

# Every page in full, so that a page that was sent twice can be seen.
PLAIN = ("--no-reuse", "--delta-cache", "0", "--compress", "none", "--no-duplicate")
WATCH_MS = 2000


def told(result, mode):
    """What is said of the working set, which must add up."""
    ws = result["godwit"].get("working-set")
    check(ws and ws["mode"] == mode, f"{mode}: {ws}")
    check(ws["predicted"] == ws["hits"] + ws["misses"], f"{ws}")
    check(ws["waits"] == 0, f"pages wait still: {ws}")
    check(result["godwit"]["pages"]["deferred"] == ws["predicted"], f"{ws} {result['godwit']['pages']}")
    return ws


class Modes(Group):
    """A guest that checks its memory, and rewrites a third of it all the time, to and fro."""

    weight = 60
    args = ()
    run = ("memtest:24",)

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")
        self.vm = self.lab.vm(run=self.run, args=self.args).boot(self.a)

    def move(self, mode, *options):
        to = self.b if self.vm.host is self.a else self.a
        return self.vm.move(to, "--working-set", mode, *PLAIN, *options)

    def move_seen(self, mode, *options):
        """The destination is not ready before it was looked twice at what the guest does."""
        host, to = self.vm.host, self.b if self.vm.host is self.a else self.a
        proxy = self.lab.closing(Proxy(to.address))
        held = proxy.at("READY", HOLD)
        command = self.vm.migrate(proxy.address, "--json", "--downtime-limit", "2000", "--working-set", mode,
                                  *PLAIN, *options)
        proxy.reached(held)
        wait_for("two looks", lambda: host.status("t").get("godwit", {}).get("working-set", {}).get("windows", 0) >= 2)
        proxy.release()
        result = command.finish().ok().json()
        self.vm.arrived(to)
        return result

    def watched(self, mode):
        result = self.move(mode, "--preprocess", str(WATCH_MS))
        ws = told(result, mode)
        check(0 < ws["windows"], f"nothing was looked at: {ws}")
        check(0 < ws["preprocess-ms"] < WATCH_MS + 1000, f"{ws}")
        # What it writes is what it accesses: it finds that, and has it wait in the first round.
        check(ws["predicted"] and ws["hits"], f"{ws}")
        check(ws["windows-without-process"] <= ws["windows"], f"{ws}")
        return ws

    def test_lru(self):
        self.watched("lru")

    def test_lru_splay(self):
        self.watched("lru-splay")

    def test_auto(self):
        ws = told(self.move_seen("auto"), "auto")
        check(ws["preprocess-ms"] == 0, f"it has taken time: {ws}")
        check(ws["predicted"], f"nothing was seen while the destination prepared itself: {ws}")

    def test_default(self):
        result = self.vm.move(self.b if self.vm.host is self.a else self.a)
        check(result["godwit"]["working-set"]["mode"] == "auto", f"{result['godwit']}")

    def test_off(self):
        result = self.move("off")
        check("working-set" not in result["godwit"], f"{result['godwit']}")
        check(result["godwit"]["pages"]["deferred"] == 0, f"{result['godwit']}")

    def test_they_follow_the_guest(self):
        """With post-copy after the first round, what waits is brought after it."""
        told(self.move("lru", "--postcopy", "auto", "--postcopy-after", "1"), "lru")

    def test_what_is_used_follows_first(self):
        """Without a round: what it accessed meanwhile goes before the rest, and all of it comes."""
        for mode in ("auto", "lru-splay"):
            ws = told(self.move_seen(mode, "--postcopy", "now"), mode)
            check(ws["windows"] and ws["expected"] and not ws["predicted"], f"{ws}")

    def test_cancelled_while_it_looks(self):
        """A user who does not want to wait does not wait for it."""
        command = self.vm.migrate((self.b if self.vm.host is self.a else self.a).address,
                                  "--working-set", "lru", "--preprocess", "60000",
                                  "--max-bandwidth", "4M")  # it may have seen enough before it is cancelled
        host = self.vm.host
        wait_for("the first look", lambda: host.status("t").get("godwit", {}).get("working-set", {}).get("windows"))
        host.godwit("cancel", "t").ok()
        command.finish().failed("cancelled")
        self.vm.lives()


class SeveralProcessors(Modes):
    """Two of them, on which different processes run at a time."""

    weight = 20

    args = ("-smp", "2")
    run = ("memtest:24", "cpu")     # or one processor idles, with the other's address space

    def test_lru_splay(self):
        """Where they differ, whose a page is cannot be told, and that is said."""
        ws = self.watched("lru-splay")
        check(ws["windows-without-process"], f"all the time the same process on both: {ws}")

    def test_auto(self):
        told(self.move("auto"), "auto")


class Usage(Group):
    """What cannot be asked for."""

    weight = 3

    def test_usage(self):
        host = self.lab.host("a")
        other = self.lab.host("b")
        self.lab.vm().boot(host)

        def refused(*options):
            return host.godwit("migrate", "t", other.address, *options)
        refused("--working-set", "best").failed("--working-set is off, lru, lru-splay or auto, not 'best'")
        refused("--preprocess", "100").failed("--preprocess is for --working-set lru or lru-splay")
        refused("--working-set", "lru", "--preprocess", "100", "--postcopy", "now").failed("not with --postcopy now")
        result = refused("--working-set", "lru", "--preprocess", "0")
        check(result.status == 2 and "from 1 to 60000" in result.err, f"{result}")
