# SPDX-License-Identifier: GPL-2.0-or-later
"""Split migration's scenarios: a VM of which half of the memory goes to another host than the guest.

Ideal is the paper's: the destination has room for all of it. The sub-host is a second godwitd on
host b, so that both ways share the source's link, which is what both wait for.
"""
import contextlib
import pathlib
import shutil
import tempfile
import time

import guest
from contenders import VM, Contender
from hosts import MIB, PEER_PORT, Daemon, Failure, MemoryGroup
from measure import Mover, by_contender, hold, medians, move_all, move_table
from pages import filled, scaled
from postcopy import READ_RATE, quantile, reads_of, slow
from report import Result

SET_MIB = 100
SET_RATE = 38               # MiB/s: 40 MB/s, a third of the link
PERIOD_MS = 100             # of the look at what the guest uses: four of them come first
SWAP_CACHE = 64 * MIB       # what swap's server and its page cache may have
SECONDS = 20                # in which a split guest's reads are looked at


@contextlib.contextmanager
def sub_host(bench):
    """A memory server beside host b, and what its guests keep of theirs in MiB."""
    setup = bench.setup
    with contextlib.closing(Daemon(setup.build, setup.network, "b", setup.folder, "s",
                                   PEER_PORT + 1, "--memory-server-limit",
                                   f"{setup.memory_mib}M")) as daemon:
        yield daemon, bench.fill_mib // 2


@contextlib.contextmanager
def swap_host(bench):
    """A memory server of host b itself, with its files on a disk, and next to no cache of them."""
    setup = bench.setup
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(contextlib.closing(MemoryGroup(SWAP_CACHE)))
        folder = pathlib.Path(tempfile.mkdtemp(prefix="gwbench-swap.", dir="/var/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        size = f"{setup.memory_mib}M"
        options = ["--swap-dir", folder, "--swap-limit", size]
        if options[0] not in Daemon.help(setup.build):
            options = ["--ram-dir", folder, "--memory-server-limit", size]
        yield stack.enter_context(contextlib.closing(
            Daemon(setup.build, setup.network, "b", setup.folder, "w", PEER_PORT + 2, *options,
                   group=group)))


def moves(bench, name, title, rate, load):
    result = Result(name, title)
    total = result.target("godwit-split's total <= 1.05 x godwit's", 1.05)
    down = result.target("godwit-split's downtime <= godwit's + 7 ms", 7)
    with sub_host(bench) as (sub, stays), contextlib.ExitStack() as stack:
        def split(mover, address):
            return Mover(mover, Contender(bench.setup, mover, {"options": [
                "--split", address, "--main-memory", f"{stays}M",
                "--history-period", str(PERIOD_MS)]}), load)
        movers = [Mover("godwit", Contender(bench.setup, "godwit", {"options": ["--no-reuse"]}), load),
                  split("godwit-split", sub.address)]
        try:
            movers.append(split("godwit-swap", stack.enter_context(swap_host(bench)).address))
        except Failure as error:
            result.notes.append(f"godwit-swap is left out: {error}")
        result.runs = move_all(bench, rate, movers)
    groups = by_contender(result.runs)
    move_table(result, groups)
    hold(total, groups, "total-ms", "godwit-split", "godwit")
    apart = [medians(groups[mover.name], "downtime-ms")["downtime-ms"] for mover in movers]
    down.measured = apart[1] - apart[0]
    down.measured_text = f"{down.measured:+.1f} ms"
    own = [run["detail"]["godwit"]["sub-hosts"] for run in groups["godwit-split"]]
    m = medians(own, "history-ms", "away-pages")
    result.notes.append(f"{stays} MiB may be at the destination; {m['away-pages'] / 256:.0f} MiB came "
                        f"to lie at its sub-host. Of the total {m['history-ms']:.0f} ms are the look at "
                        f"what the guest uses (four periods of {PERIOD_MS} ms)")
    return result


def idle_1gbit(bench):
    return moves(bench, "split-idle-1gbit", "half of the memory of an idle guest goes to a sub-host, "
                 "link 1 Gbit/s", "1gbit", bench.idle)


def idle_unshaped(bench):
    return moves(bench, "split-idle-unshaped", "half of the memory of an idle guest goes to a sub-host, "
                 "link unshaped", "", bench.idle)


def writer_1gbit(bench):
    mib = scaled(bench, SET_MIB)
    load = filled(f"wset:{mib}:{SET_RATE}:0", fill_mib=bench.fill_mib, ready=[("wset: ", 3)])
    return moves(bench, "split-writer-1gbit", "the same of one that rewrites a set at 40 MB/s, link "
                 "1 Gbit/s", "1gbit", load)


def reads_split(bench, load, repetition=1):
    """A guest that reads is split where it is; what its reads take from then on."""
    contender = Contender(bench.setup, "godwit", {"options": []})
    with sub_host(bench) as (sub, stays), bench.guest(contender, load) as (vm, _):
        vm.daemon.call("split", VM, "--to", sub.address, "--main-memory", f"{stays}M")
        before, then = dict(reads_of(vm)), vm.daemon.call("status", VM, "--json")
        time.sleep(SECONDS)
        reads = [(us, n - before.get(us, 0)) for us, n in reads_of(vm)]
        now = vm.daemon.call("status", VM, "--json")
    split, was = now["godwit"]["split"], then["godwit"]["split"]
    run = {"contender": "godwit", "repetition": repetition,
           "reads": sum(n for _, n in reads), "slow": sum(n for _, n in slow(reads)),
           "faults": split["faults"] - was["faults"],
           "page-ins": split["page-ins"] - was["page-ins"],
           "own-us": split["latency"] / 1e3,
           **{f"us-{share}": quantile(slow(reads), share / 100) for share in (50, 90, 99)}}
    bench.say(f"{repetition}/{bench.repetitions}: {run['slow']} of {run['reads']} reads slow, "
              f"median {run['us-50']} us, 99 % {run['us-99']} us, {run['faults']} faults, "
              f"{run['page-ins']} pages in")
    return run


def faults(bench, name, rate, median_us, p99_us):
    result = Result(name, "what a read of a page that is at a sub-host costs the guest, link "
                    f"{rate or 'unshaped'}")
    half = result.target(f"median <= {median_us} us", median_us)
    most = result.target(f"99 % <= {p99_us} us", p99_us)
    bench.setup.network.up(rate)
    load = guest.Load(f"latency:{bench.fill_mib}:{READ_RATE}", ready=[("latency: ", 3)])
    result.runs = [reads_split(bench, load, repetition)
                   for repetition in range(1, bench.repetitions + 1)]
    m = medians(result.runs, "reads", "slow", "us-50", "us-90", "us-99", "faults", "page-ins",
                "own-us")
    result.columns = ["", "reads", "slow", "median us", "90 %", "99 %", "faults", "pages in", "own us"]
    result.rows.append(["godwit", *(f"{m[key]:.0f}" for key in (
        "reads", "slow", "us-50", "us-90", "us-99", "faults", "page-ins", "own-us"))])
    result.notes.append(f"half of {bench.fill_mib} MiB is here; reads at random, for {SECONDS} s after "
                        "the split; 'own': the pager's mean, from when it read a fault until it "
                        "placed the page")
    for target, key in ((half, "us-50"), (most, "us-99")):
        target.measured = m[key]
        target.measured_text = f"{m[key]:.0f} us"
    return result


def faults_unshaped(bench):
    return faults(bench, "split-faults-unshaped", "", 120, 500)


def faults_1gbit(bench):
    return faults(bench, "split-faults-1gbit", "1gbit", 1200, 5000)


ALL = {
    "split-idle-1gbit": idle_1gbit,
    "split-idle-unshaped": idle_unshaped,
    "split-writer-1gbit": writer_1gbit,
    "split-faults-unshaped": faults_unshaped,
    "split-faults-1gbit": faults_1gbit,
}
