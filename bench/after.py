# SPDX-License-Identifier: GPL-2.0-or-later
"""How a guest works once its memory lies on several hosts: sort and memcached (paper S-memV, V-C, V-D).

The guest moves from host a to host b, and works there. Ideal: b has room for all of its memory. Split:
for half of what it has, and the rest goes to a memory server, a second godwitd on host a, so that what b
pages afterwards crosses the link. Swap: that half lies in files on b's own disk.
"""
import contextlib
import re
import statistics
import time

import guest
from contenders import VM, Contender
from hosts import PEER_PORT, Daemon, Failure, wait_until
from measure import by_contender, hold, medians, move_once, ratio, say_run, spread, survived
from pages import MEMCACHED_PORT, filled, scaled
from report import Result
from split import swap_host

GUEST_MIB = 96              # that it has besides its random data and what its servers store
SORT_MIB = 300              # of 1000: fits into the main host's half, beside the guest's kernel
FITS_MIB, LARGE_MIB = 300, 600  # values that memcached has; with what is around them 355, 710
SORT_SECONDS = 3600
LOOKS = 4                   # periods that a migration looks at what the guest uses
RECOVERY = 5.0              # seconds after the guest resumed in which it is to be as fast as before
USUAL_SHARE = 0.95          # of ideal's answers: as fast as before
WATCHED = 30.0              # seconds after that


class Way:
    """One of the ways in which half of the memory is not at the destination; ideal is none."""

    def __init__(self, bench, name, *options):
        self.name = name
        self.split = bool(options)
        self.contender = Contender(bench.setup, name, {"options": ["--no-reuse", *options]})


@contextlib.contextmanager
def ways(bench, result, *names):
    """Those of these names; what cannot be had here is left out, and the result says why."""
    setup = bench.setup
    stays = (bench.fill_mib + GUEST_MIB) // 2
    period = bench.stay * 1000 // (2 * LOOKS)   # the looks take half as long as a stay
    with contextlib.ExitStack() as stack:
        sub = stack.enter_context(contextlib.closing(
            Daemon(setup.build, setup.network, "a", setup.folder, "s", PEER_PORT + 1,
                   "--memory-server-limit", f"{setup.memory_mib}M")))

        def to(address, *more):
            return ["--split", address, "--main-memory", f"{stays}M", *more]
        found = []
        for name in names:
            if name == "ideal":
                found.append(Way(bench, name))
            elif name == "split":
                found.append(Way(bench, name, *to(sub.address, "--history-period", str(period))))
            elif name == "blind":
                found.append(Way(bench, name, *to(sub.address, "--history-period", "10",
                                                  "--history-shift", "1")))
            else:
                try:
                    swap = stack.enter_context(swap_host(bench))
                except Failure as error:
                    result.notes.append(f"{name} is left out: {error}")
                    continue
                found.append(Way(bench, name, *to(swap.address, "--history-period", str(period))))
        result.notes.append(f"{stays} MiB may be at the destination. Before it moves the guest works for "
                            f"{bench.stay} s, and then for {LOOKS * period / 1000:g} in which it is "
                            "looked what it uses")
        yield found


def looked(vm, client):
    """Wait until what the guest uses has been looked at, which is before anything is sent."""
    def done():
        if client.poll():
            raise Failure(client.stderr.read().strip())
        sub = vm.daemon.call("status", VM, "--json").get("godwit", {}).get("sub-hosts")
        return sub and not sub["sampling"] and sub["history-ms"]
    wait_until(done, 300, "the look at what the guest uses", pause=0.1)


def paged(vm):
    """What was paged so far, of a VM that is split, as soon as its keeper says so."""
    split = wait_until(lambda: vm.daemon.call("status", VM, "--json").get("godwit", {}).get("split"),
                       30, "an account of what is paged")
    return {key: split[key] for key in ("page-ins", "page-outs", "faults")}


def since(vm, before):
    return {key: value - before[key] for key, value in paged(vm).items()}


NOTHING = {"page-ins": 0, "page-outs": 0, "faults": 0}


def passes(console):
    """What each whole pass of quicksort took since it went on, in ms."""
    text = console.text()
    if "BAD" in text:
        raise Failure(f"the guest lost memory: {text[text.index('BAD') - 40:][:120]!r}")
    text = text.partition("quicksort: goes on\n")[2]
    return [int(ms) for ms in re.findall(r"^quicksort: pass \d+ ok, (\d+) ms\n", text, re.M)]


def sort_once(bench, way, load):
    """Sort for a while, halt when it moves, and begin again there; what one pass takes, and pages."""
    network = bench.setup.network
    with bench.guest(way.contender, load) as (vm, _):
        time.sleep(bench.stay)  # the procedure, not a wait for something

        def halt(client):
            if way.split:
                looked(vm, client)
            guest.shell(network, "killall -USR1 quicksort")
        run = move_once(bench, vm, meanwhile=halt)
        before = paged(vm) if way.split else NOTHING
        guest.shell(network, "killall -USR2 quicksort")
        wait_until(lambda: passes(vm.console), SORT_SECONDS, "a sorted array", pause=0.2)
        run["sort-ms"] = passes(vm.console)[0]
        run.update(since(vm, before) if way.split else NOTHING)
    run["contender"] = way.name
    return run


def sort_all(bench, result, rate, *names):
    """Each of the ways as often as wished; the table, and runs by the ways' names."""
    mib = scaled(bench, SORT_MIB)
    load = filled(f"quicksort:{mib}", fill_mib=bench.fill_mib - mib,
                  ready=[("quicksort: filled", 1)])
    bench.setup.network.up(rate)
    with ways(bench, result, *names) as found:
        for repetition, way in bench.all_in_turn(found):
            run = sort_once(bench, way, load)
            run["repetition"] = repetition
            result.runs.append(run)
            bench.say(f"{repetition}/{bench.repetitions} {way.name}: {run['sort-ms'] / 1e3:.2f} s, "
                      f"{run['page-ins']} pages in, {run['page-outs']} out, {run['faults']} faults")
    groups = by_contender(result.runs)
    result.columns = ["", "sort s", "spread", "x ideal", "pages in", "pages out", "faults"]
    for name, rows in groups.items():
        m = medians(rows, "sort-ms", "page-ins", "page-outs", "faults")
        result.rows.append([name, f"{m['sort-ms'] / 1e3:.2f}", f"{spread(rows, 'sort-ms') * 100:.0f} %",
                            ratio(groups, "sort-ms", name, "ideal")[1],
                            *(f"{m[key]:.0f}" for key in ("page-ins", "page-outs", "faults"))])
        result.bars.append((name, m["sort-ms"] / 1e3))
    result.unit = "one sort, s"
    result.notes.append(f"{mib} MiB of random numbers are made and sorted at the destination, by the guest's "
                        "own clock; medians. Pages: meanwhile")
    return groups


def sort(bench, name, rate):
    result = Result(name, "sorting after the move, link " + (rate or "unshaped"))
    target = result.target("split's sort <= 1.035 x ideal's", 1.035)
    groups = sort_all(bench, result, rate, "ideal", "split", "swap")
    hold(target, groups, "sort-ms", "split", "ideal")
    return result


def sort_unshaped(bench):
    return sort(bench, "after-sort-unshaped", "")


def sort_1gbit(bench):
    return sort(bench, "after-sort-1gbit", "1gbit")


def serve_once(bench, way, load, watched):
    """A server is asked for a while, moves meanwhile, and is asked on there."""
    with bench.guest(way.contender, load) as (vm, client):
        time.sleep(bench.stay)  # the procedure, as above
        run = move_once(bench, vm)
        time.sleep(max(0, run["resumed-at"] + RECOVERY + watched - time.time()))
        run["client"] = client.finish()
        run.update(paged(vm) if way.split else NOTHING)
    if not survived(run["client"]):
        raise Failure(f"{way.name}: the guest's server did not survive: "
                      f"{run['client']['error'] or 'no answer any more'}")
    run["contender"] = way.name
    return run


def answers_of(run):
    """(seconds since the guest resumed, answers a second) in each tick."""
    client = run["client"]
    begin = run["resumed-at"] - client["started-at"]
    tick = client["tick-ms"] / 1e3
    return [(i * tick - begin, count / tick) for i, count in enumerate(client["rates"])]


def mean_between(points, begin, end):
    return statistics.mean([rate for at, rate in points if begin <= at < end] or [0])


def back_after(points, usual):
    """When the first second begins in which the server answers as ever; None: it does not."""
    last = points[-1][0] - 1
    for at, _ in points:
        if 0 <= at <= last and mean_between(points, at, at + 1) >= USUAL_SHARE * usual:
            return at
    return None


def serve(bench, name, title, rate, mib, watched=WATCHED):
    result = Result(name, title)
    mib = scaled(bench, mib)
    # Values of 1000 bytes take 1184 with what memcached puts around them.
    taken = mib * 1184 // 1000
    load = filled(f"memcached:-u:root:-m:{mib * 4 // 3}:-t:4:-U:0", fill_mib=bench.fill_mib - taken,
                  client=(guest.KeyValueLoad, "memaslap", mib, MEMCACHED_PORT))
    watched = watched / 3 if bench.quick else watched
    bench.setup.network.up(rate)
    with ways(bench, result, "ideal", "split", "swap") as found:
        for repetition, way in bench.all_in_turn(found):
            run = serve_once(bench, way, load, watched)
            run["repetition"] = repetition
            run["points"] = answers_of(run)
            run["steady"] = mean_between(run["points"], RECOVERY, RECOVERY + watched)
            run["at-first"] = mean_between(run["points"], 0, 1)
            result.runs.append(run)
            say_run(bench, repetition, way.name, run)
            bench.say(f"then {run['at-first']:.0f} answers in the first second, {run['steady']:.0f} a second "
                      f"after {RECOVERY:.0f} s; {run['page-ins']} pages in, {run['page-outs']} out")
    groups = by_contender(result.runs)
    usual = medians(groups["ideal"], "steady")["steady"]
    result.columns = ["", "first second", "after 5 s, 1/s", "x ideal", "spread", "back after s", "pages in",
                      "pages out"]
    for name, rows in groups.items():
        for row in rows:
            row["back-s"] = back_after(row["points"], usual)
        m = medians(rows, "at-first", "steady", "page-ins", "page-outs", "back-s")
        # Half of them that never come back are no median.
        if sum(row["back-s"] is None for row in rows) * 2 > len(rows):
            m["back-s"] = None
        result.rows.append([name, f"{m['at-first']:.0f}", f"{m['steady']:.0f}",
                            ratio(groups, "steady", name, "ideal")[1], f"{spread(rows, 'steady') * 100:.0f} %",
                            "never" if m["back-s"] is None else f"{m['back-s']:.1f}",
                            f"{m['page-ins']:.0f}", f"{m['page-outs']:.0f}"])
        result.series.append((name, [p for p in rows[0]["points"] if p[0] >= -RECOVERY]))
        groups[name][0]["median"] = m
    result.unit = "answers per second"
    result.notes.append(f"{mib} MiB of values, asked and changed 9 to 1, all alike. Back: the first second "
                        f"after the guest resumed that has {USUAL_SHARE * 100:.0f} % of the {usual:.0f} answers "
                        f"which ideal gives from {RECOVERY:.0f} s to {RECOVERY + watched:.0f} s after; medians. The "
                        "plot has the first repetition. Pages: from the resume on")
    return result, groups


def fits(bench, name, rate):
    result, groups = serve(bench, name, "memcached after the move, its memory fits, link " +
                           (rate or "unshaped"), rate, FITS_MIB)
    steady = result.target("split's answers >= 0.994 x ideal's", 0.994, at_least=True)
    back = result.target(f"split is back <= {RECOVERY:.0f} s after it resumed", RECOVERY)
    steady.measured, steady.measured_text = ratio(groups, "steady", "split", "ideal")
    back.measured = groups["split"][0]["median"]["back-s"]
    back.missed = back.measured is None
    back.measured_text = "never" if back.missed else f"{back.measured:.1f} s"
    return result


def fits_unshaped(bench):
    return fits(bench, "after-memcached-unshaped", "")


def fits_1gbit(bench):
    return fits(bench, "after-memcached-1gbit", "1gbit")


def large_unshaped(bench):
    return serve(bench, "after-large-unshaped", "memcached after the move, its memory does not fit, link "
                 "unshaped", "", LARGE_MIB)[0]


def large_1gbit(bench):
    return serve(bench, "after-large-1gbit", "memcached after the move, its memory does not fit, link "
                 "1gbit", "1gbit", LARGE_MIB)[0]


ALL = {
    "after-sort-unshaped": sort_unshaped,
    "after-sort-1gbit": sort_1gbit,
    "after-memcached-unshaped": fits_unshaped,
    "after-memcached-1gbit": fits_1gbit,
    "after-large-unshaped": large_unshaped,
    "after-large-1gbit": large_1gbit,
}
