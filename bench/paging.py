# SPDX-License-Identifier: GPL-2.0-or-later
"""What paging to sub-hosts carries, and what the paper's history is worth and costs (S-memV, V-D, V-E)."""
import json
import subprocess
import time

import after
import guest
from contenders import VM, Contender
from hosts import Failure
from measure import medians, ratio
from pages import MEMCACHED_PORT, filled, scaled
from postcopy import READ_RATE
from report import Result
from split import SECONDS, reads_split, sub_host

PAGE = 4096
CPUS = (1, 4)
PERIODS, PERIOD_MS = 60, 1000   # that a guest's accesses are recorded: half of them are its history
AGEING_RUNS = 5
PAPER_MS = {"collect": 600, "split": 800, "victim": 12.7}   # for 2 TB (Fig. 14)
LARGEST_GIB = 2048


def program(bench, name, *words):
    """What a program of this folder's prints: a JSON object a line."""
    done = subprocess.run([str(bench.setup.build / "bench" / name), *map(str, words)],
                          capture_output=True, text=True)
    if done.returncode:
        raise Failure(done.stderr.strip() or f"{name} failed")
    return [json.loads(line) for line in done.stdout.splitlines()]


def ageing(bench):
    result = Result("paging-ageing", "the history of guests of 1 GiB to 2 TiB, without the guests")
    targets = {step: result.target(f"{what} of 2 TiB <= {PAPER_MS[step]} ms (the paper's)",
                                   PAPER_MS[step])
               for step, what in (("collect", "collecting and shifting"), ("split", "splitting"),
                                  ("victim", "choosing what leaves"))}
    rows = program(bench, "ageing", 1 if bench.quick else AGEING_RUNS)
    result.runs = rows
    result.columns = ["", "collect ms", "shift ms", "split ms", "victim ms", "64 victims ms", "MiB"]
    sizes = [row for row in rows if "gib" in row]
    for row in sizes:
        result.rows.append([f"{row['gib']} GiB", *(f"{row[key]:.3f}" for key in (
            "collect", "shift", "split", "victim", "victims")), f"{row['mib']:.1f}"])
    largest = next(row for row in sizes if row["gib"] == LARGEST_GIB)
    for step, target in targets.items():
        target.measured = largest[step] + (largest["shift"] if step == "collect" else 0)
        target.measured_text = f"{target.measured:.1f} ms"
    result.notes.append("medians, in ms of one processor; access bits and histories are random, as in the "
                        "paper. What it takes to get the bits from a guest is not in it, neither in the "
                        "paper's")
    return result


def sorting(bench):
    mib = scaled(bench, after.SORT_MIB)
    return filled(f"quicksort:{mib}", fill_mib=bench.fill_mib - mib, ready=[("quicksort: filled", 1)])


def serving(bench):
    mib = scaled(bench, after.FITS_MIB)
    return filled(f"memcached:-u:root:-m:{mib * 4 // 3}:-t:4:-U:0",
                  fill_mib=bench.fill_mib - mib * 1184 // 1000,
                  client=(guest.KeyValueLoad, "memaslap", mib, MEMCACHED_PORT))


def placement(bench):
    result = Result("paging-placement", "the same accesses, placed by the paper's history and at random")
    periods, ms = (10, 500) if bench.quick else (PERIODS, PERIOD_MS)
    loads = {"sort": sorting(bench), "memcached": serving(bench)}
    targets = {name: result.target(f"{name}: pages in by history <= 0.5 x those of random placement", 0.5)
               for name in loads}
    contender = Contender(bench.setup, "godwit", {"options": []})
    for repetition, name in bench.all_in_turn(list(loads)):
        with bench.guest(contender, loads[name]) as (vm, _):
            time.sleep(bench.stay)  # the procedure: it works for a while before anybody looks
            run = program(bench, "placement", vm.pid, vm.monitor, periods, ms)[0]
        run.update(contender=name, repetition=repetition, known=run["history"]["pages-in"],
                   drawn=run["random"]["pages-in"])
        result.runs.append(run)
        bench.say(f"{repetition}/{bench.repetitions} {name}: {run['known']} pages in by history, "
                  f"{run['drawn']:.0f} at random")
    result.columns = ["", "units used", "stay", "accessed a period", "pages in", "at random", "from", "to"]
    for name, target in targets.items():
        rows = [run for run in result.runs if run["contender"] == name]
        m = medians(rows, "used", "stays", "accessed", "known", "drawn")
        result.rows.append([name, *(f"{m[key]:.0f}" for key in ("used", "stays", "accessed", "known",
                                                                "drawn")),
                            f"{min(run['random']['least'] for run in rows)}",
                            f"{max(run['random']['most'] for run in rows)}"])
        if m["drawn"]:
            target.measured = m["known"] / m["drawn"]
            target.measured_text = f"{target.measured:.3f} x"
    result.notes.append(f"which pages the guest accesses is recorded for {periods} periods of {ms} ms; half of "
                        "them are its history, and in the others it is played which units of 256 pages would "
                        "have had to come, if half of what it has had stayed (bench/placement.c). At random: "
                        "the mean of twenty draws, and the extremes")
    return result


def blind(bench):
    result = Result("paging-blind", "sorting after a move that knows what the guest uses, and one that does not")
    target = result.target("split's pages in <= 0.5 x those of blind", 0.5)
    groups = after.sort_all(bench, result, "", "split", "blind")
    if medians(groups["blind"], "page-ins")["page-ins"]:
        target.measured, target.measured_text = ratio(groups, "page-ins", "split", "blind")
    result.notes.append("blind: four looks that are 10 ms apart, and a history that eight more forget: which units stay and "
                        "which leave is mostly by their numbers, and where in its memory the guest has what "
                        "it sorts, is chance")
    return result


def walk(bench, load, repetition):
    """A guest that goes through its memory is split where it is; what comes to it from then on."""
    contender = Contender(bench.setup, "godwit", {"options": []})
    with sub_host(bench) as (sub, stays), bench.guest(contender, load) as (vm, _):
        vm.daemon.call("split", VM, "--to", sub.address, "--main-memory", f"{stays}M")
        before, began = after.paged(vm), time.monotonic()
        time.sleep(SECONDS)
        run = after.since(vm, before)
        run["seconds"] = time.monotonic() - began
    run.update(bandwidth=bench.setup.network.measure_bandwidth(), repetition=repetition)
    run["share"] = run["page-ins"] * PAGE / run["seconds"] / run["bandwidth"]
    bench.say(f"{repetition}/{bench.repetitions}: {run['page-ins']} pages in, {run['page-outs']} out: "
              f"{run['share'] * 100:.0f} % of the link")
    return run


def vcpus(bench, name, rate):
    result = Result(name, f"paging with {' and '.join(map(str, CPUS))} faulting vCPUs, link " +
                    (rate or "unshaped"))
    share = result.target("paging throughput with 1 vCPU >= 0.6 x the link's", 0.6, at_least=True)
    bench.setup.network.up(rate)
    result.columns = ["vCPUs", "reads", "slow", "median us", "90 %", "99 %", "faults/s", "own us",
                      "pages/s walked", "of the link"]
    for cpus in CPUS:
        mib = bench.fill_mib // cpus
        readers = guest.Load(*[f"latency:{mib}:{READ_RATE}"] * cpus, ready=[("latency: ", 3 * cpus)],
                             cpus=cpus)
        walkers = guest.Load(*[f"wset:{mib}:0:100"] * cpus, ready=[("wset: ", 3 * cpus)], cpus=cpus)
        reads = [reads_split(bench, readers, i) for i in range(1, bench.repetitions + 1)]
        walks = [walk(bench, walkers, i) for i in range(1, bench.repetitions + 1)]
        for kind, runs in (("read", reads), ("walk", walks)):
            for run in runs:
                run.update(kind=kind, cpus=cpus)
            result.runs += runs
        m = medians(reads, "reads", "slow", "us-50", "us-90", "us-99", "faults", "own-us")
        w = medians(walks, "page-ins", "share", "seconds")
        result.rows.append([str(cpus), *(f"{m[key]:.0f}" for key in ("reads", "slow", "us-50", "us-90",
                                                                     "us-99")),
                            f"{m['faults'] / SECONDS:.0f}", f"{m['own-us']:.0f}",
                            f"{w['page-ins'] / w['seconds']:.0f}", f"{w['share'] * 100:.0f} %"])
        if cpus == CPUS[0]:
            share.measured = w["share"]
            share.measured_text = f"{w['share']:.2f} x"
    result.notes.append(f"half of {bench.fill_mib} MiB is here. Reads: each vCPU reads {READ_RATE} MiB a second at "
                        f"random, for {SECONDS} s. Walked: each goes through its part as fast as it can, round "
                        "after round, and stores what is there; so as much leaves as comes. Of the link: "
                        "bytes of the pages that came, of what one TCP connection carries")
    return result


def vcpus_unshaped(bench):
    return vcpus(bench, "paging-vcpus-unshaped", "")


def vcpus_1gbit(bench):
    return vcpus(bench, "paging-vcpus-1gbit", "1gbit")


ALL = {
    "paging-vcpus-unshaped": vcpus_unshaped,
    "paging-vcpus-1gbit": vcpus_1gbit,
    "paging-placement": placement,
    "paging-blind": blind,
    "paging-ageing": ageing,
}
