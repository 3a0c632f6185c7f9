# SPDX-License-Identifier: GPL-2.0-or-later
"""Post-copy's scenarios: what it is for, and what the guest and its clients feel of it."""
import re
import statistics
import time

import guest
from contenders import Contender
from hosts import MIB, Failure
from measure import Mover, by_contender, ended, hold, medians, move_all, move_once, move_table, \
    say_run, survived, watch
from pages import MEMCACHED_PORT, REDIS_PORT, filled, scaled, under
from report import Result

SET_MIB = 100
SET_RATE = 153              # MiB/s: 160 MB/s
READ_RATE = 8               # MiB/s of pages read: 2048 reads a second
SLOW_US = 20                # a read that took longer waited for more than this machine's caches
PAGE_ON_LINK = 4096 + 40    # with the heads of its frame and its record
OPERATIONS_BEFORE = 5.0     # seconds
OPERATIONS_AFTER = 15.0


def stopwatch(bench, vm, give_up):
    """A move, and the longest silence that a client of the guest saw."""
    bench.setup.memory.warm()
    before, source = bench.setup.network.sent(vm.host), vm.host
    seen, run = watch(bench, lambda: vm.move(give_up))
    run.update({"on-link": bench.setup.network.sent(source) - before,
                "silence-ms": seen["silence-ms"]})
    return run


def rewrite_1gbit(bench):
    result = Result("rewrite-1gbit", "a set is rewritten at 160 MB/s, faster than the link")
    total = result.target("godwit-auto's total <= 1.15 x an idle guest's", 1.15)
    silence = result.target("godwit-auto: a client hears nothing for <= 100 ms", 100)
    mib = scaled(bench, SET_MIB)
    load = filled(f"wset:{mib}:{SET_RATE}:0", fill_mib=bench.fill_mib, ready=[("wset: ", 3)])
    idle = guest.Load(f"fill:{bench.fill_mib + mib}", ready=[("fill: filled", 1)], quiet=True)
    movers = under(bench, load, "godwit-auto", "godwit-now", "qemu-postcopy", "qemu-preempt")
    movers.append(Mover("godwit, idle", Contender(bench.setup, "godwit", {"options": []}), idle))
    result.runs = move_all(bench, "1gbit", movers, bench.give_up, stopwatch)
    groups = by_contender(result.runs)
    move_table(result, groups)
    result.columns.append("silence ms")
    for row, rows in zip(result.rows, groups.values()):
        row.append(f"{statistics.median(run['silence-ms'] for run in rows):.0f}")
    hold(total, groups, "total-ms", "godwit-auto", "godwit, idle")
    if "godwit-auto" in groups:
        silence.measured = medians(groups["godwit-auto"], "silence-ms")["silence-ms"]
        silence.measured_text = f"{silence.measured:.0f} ms"
    result.notes.append("silence: the longest that a datagram each millisecond to the guest's UDP "
                        "echo found, medians; the guest's only processor writes meanwhile")
    return result


def reads_of(vm, seconds=30):
    """What reads took since the guest's console began: (us, how many), ascending."""
    vm.console.wait("latency: ", seconds, vm.console.text().count("latency: ") + 1)
    reads = {}
    for line in re.findall(r"^latency: ([0-9: ]+)\n", vm.console.text(), re.M):
        for word in line.split():
            us, count = map(int, word.split(":"))
            reads[us] = reads.get(us, 0) + count
    return sorted(reads.items())


def quantile(reads, share):
    left = sum(count for _, count in reads) * share
    for us, count in reads:
        left -= count
        if left <= 0:
            return us
    return None


def slow(reads):
    return [(us, count) for us, count in reads if us >= SLOW_US]


def latency_of(bench, vm, give_up):
    before = reads_of(vm)
    run = move_once(bench, vm, give_up)
    run["reads"] = reads_of(vm)
    run["slow-before"] = sum(n for _, n in slow(before)) / sum(n for _, n in before)
    return run


def faults(bench, name, rate, median_us, p99_us):
    result = Result(name, "what a read of a page that is not there yet costs the guest, link "
                    f"{rate or 'unshaped'}")
    half = result.target(f"godwit-now: median <= {median_us} us", median_us)
    most = result.target(f"godwit-now: 99 % <= {p99_us} us", p99_us)
    beside = [result.target(f"godwit-now's {what} <= qemu-preempt-now's", 1)
              for what in ("median", "99 %")]
    load = guest.Load(f"latency:{bench.fill_mib}:{READ_RATE}", ready=[("latency: ", 3)])
    movers = under(bench, load, "godwit-now", "qemu-preempt-now", "qemu-postcopy-now")
    result.runs = move_all(bench, rate, movers, bench.give_up, latency_of)
    groups = by_contender(result.runs)
    result.columns = ["", "slow reads", "median us", "90 %", "99 %", "longest", "total s",
                      "slow before"]
    for name, rows in groups.items():
        for row in rows:
            reads = slow(row["reads"])
            row.update({"slow": sum(count for _, count in reads),
                        "longest-us": reads[-1][0] if reads else 0,
                        **{f"us-{share}": quantile(reads, share / 100) for share in (50, 90, 99)}})
        m = medians(rows, "slow", "us-50", "us-90", "us-99", "longest-us", "total-ms", "slow-before")
        result.rows.append([name, *(f"{m[key]:.0f}" for key in ("slow", "us-50", "us-90", "us-99",
                                                                "longest-us")),
                            f"{m['total-ms'] / 1e3:.2f}", f"{m['slow-before'] * 100:.2f} %"])
        result.bars.append((name, m["us-50"]))
    result.unit = "median, us"
    bandwidth = medians(result.runs, "bandwidth")["bandwidth"]
    result.notes.append(f"a read is slow from {SLOW_US} us on; 'slow before': so many of all were "
                        "before the move. Medians over the repetitions. The floor: a page alone "
                        f"takes {PAGE_ON_LINK / bandwidth * 1e6:.0f} us on this link, and what "
                        "is pushed lies before it in line at the end of the same wire")
    if "godwit-now" in groups:
        m = medians(groups["godwit-now"], "us-50", "us-99")
        for target, key in ((half, "us-50"), (most, "us-99")):
            target.measured = m[key]
            target.measured_text = f"{m[key]:.0f} us"
    for target, key in zip(beside, ("us-50", "us-99")):
        hold(target, groups, key, "godwit-now", "qemu-preempt-now")
    return result


def faults_1gbit(bench):
    return faults(bench, "faults-1gbit", "1gbit", 1200, 5000)


def faults_unshaped(bench):
    return faults(bench, "faults-unshaped", "", 150, 1000)


def answers_around(run):
    """(seconds since the guest resumed, answers a second) in each tick around the move."""
    client = run["client"]
    tick = client["tick-ms"] / 1e3
    begin = (run["resumed-at"] or run["asked-at"]) - client["started-at"]
    points = [(i * tick - begin, count / tick) for i, count in enumerate(client["rates"])]
    asked = run["asked-at"] - client["started-at"] - begin
    return [(at, rate) for at, rate in points
            if asked - OPERATIONS_BEFORE <= at <= max(OPERATIONS_AFTER, run["total-ms"] / 1e3)]


def answers(bench, name, title, load):
    """A server's answers in each 100 ms around the move: those who go before their memory, or not."""
    result = Result(name, title)
    result.columns = ["", "before 1/s", "while moving", "after", "ticks < 1/2", "none", "total s",
                      "longest gap ms"]
    bench.setup.network.up("1gbit")
    for repetition, mover in bench.all_in_turn(
            under(bench, load, "godwit-auto", "godwit", "qemu", "qemu-postcopy")):
        with bench.guest(mover.contender, mover.load) as (vm, client):
            bench.setup.memory.warm()
            time.sleep(OPERATIONS_BEFORE)
            try:
                run = move_once(bench, vm, bench.give_up)
            except Failure as error:
                if mover.name.startswith("godwit"):
                    raise
                result.notes.append(f"{mover.name}, repetition {repetition}: {str(error)[:160]}")
                continue
            time.sleep(OPERATIONS_AFTER)
            run["client"] = client.finish()
        run["survived"] = survived(run["client"])
        run.update(contender=mover.name, repetition=repetition)
        result.runs.append(run)
        say_run(bench, repetition, mover.name, run)
    for name, rows in by_contender(result.runs).items():
        for row in rows:
            points = answers_around(row)
            asked = row["asked-at"] - (row["resumed-at"] or row["asked-at"])
            over = asked + row["total-ms"] / 1e3
            usual = statistics.median(rate for at, rate in points if at < asked)
            row.update(points=points, usual=usual,
                       moving=statistics.mean(rate for at, rate in points if asked <= at < over),
                       after=statistics.mean([rate for at, rate in points if at >= over] or [0]),
                       poor=sum(rate < usual / 2 for at, rate in points if at >= asked),
                       none=sum(rate == 0 for at, rate in points if at >= asked))
        result.series.append((name, rows[0]["points"]))
        m = medians(rows, "usual", "moving", "after", "poor", "none", "total-ms")
        gap = statistics.median(row["client"]["gap-ms"] for row in rows)
        above = "" if ended(rows) else "> "
        result.rows.append([name, *(f"{m[key]:.0f}" for key in ("usual", "moving", "after", "poor",
                                                                "none")),
                            f"{above}{m['total-ms'] / 1e3:.2f}", f"{gap:.0f}"])
        lost = sum(not row["survived"] for row in rows)
        if lost:
            result.notes.append(f"{name}: {lost} of {len(rows)} guests DID NOT SURVIVE the move")
    result.unit = "answers per second"
    result.notes.append("ticks of 100 ms, from the request on: in which fewer than half of the "
                        "usual answers came, or none. The plot has the first repetition, in "
                        "seconds since the guest resumed")
    return result


def answers_memcached(bench):
    # Values of 1000 bytes take 1184 with what memcached puts around them.
    load = guest.Load(f"memcached:-u:root:-m:{bench.fill_mib * 4 // 3}:-t:4:-U:0",
                      client=(guest.KeyValueLoad, "memaslap", bench.fill_mib, MEMCACHED_PORT))
    return answers(bench, "answers-memcached", "memcached's answers around a move, 1 Gbit/s", load)


def answers_redis(bench):
    load = guest.Load("redis-server:--save::--protected-mode:no",
                      client=(guest.KeyValueLoad, "ycsb", bench.fill_mib, REDIS_PORT))
    return answers(bench, "answers-redis", "redis' answers around a move, 1 Gbit/s", load)


def return_now(bench):
    result = Result("return-now", "a busy loop comes back, and goes before its memory is compared")
    target = result.target("godwit-now runs there <= 150 ms after the request", 150)
    load = filled("cpu", fill_mib=bench.fill_mib, ready=[("cpu: ", 2)])
    result.columns = ["leg 2 of", "running ms", "by the client", "setup ms", "total s", "on link MiB"]
    bench.setup.network.up("1gbit")
    for repetition, contender in bench.all_in_turn(bench.contenders("godwit-now", "godwit")):
        for daemon in bench.setup.daemons.values():
            daemon.begin_anew()
        plain = Contender(bench.setup, "godwit", {"options": []})
        with bench.guest(plain, load) as (vm, _):
            move_once(bench, vm)
            time.sleep(bench.stay)  # the procedure, not a wait for something
            vm.options = contender.kind["options"]
            run = move_once(bench, vm)
        run.update({"contender": contender.name, "repetition": repetition,
                    "running-ms": run["detail"]["godwit"]["running-ms"],
                    "setup-ms": run["detail"]["setup-time"],
                    "seen-ms": (run["resumed-at"] - run["asked-at"]) * 1e3})
        result.runs.append(run)
        say_run(bench, repetition, contender.name, run)
    groups = by_contender(result.runs)
    for name, rows in groups.items():
        m = medians(rows, "running-ms", "seen-ms", "setup-ms", "total-ms", "on-link")
        result.rows.append([name, f"{m['running-ms']:.0f}", f"{m['seen-ms']:.0f}",
                            f"{m['setup-ms']:.0f}", f"{m['total-ms'] / 1e3:.2f}",
                            f"{m['on-link'] / MIB:.1f}"])
        result.bars.append((name, m["running-ms"]))
    result.unit = "until it runs there, ms"
    if "godwit-now" in groups:
        target.measured = medians(groups["godwit-now"], "running-ms")["running-ms"]
        target.measured_text = f"{target.measured:.0f} ms"
    return result


ALL = {
    "rewrite-1gbit": rewrite_1gbit,
    "faults-1gbit": faults_1gbit,
    "faults-unshaped": faults_unshaped,
    "answers-memcached": answers_memcached,
    "answers-redis": answers_redis,
    "return-now": return_now,
}
