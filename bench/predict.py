# SPDX-License-Identifier: GPL-2.0-or-later
"""What is won by knowing which pages a guest will write next (Zaw and Thein): the same trace, for all ways.

Nothing is moved: what a guest accesses and writes is recorded in short windows (trace.c), and each way
to choose the pages that wait is played on it (replay.c), beside the one that knows what comes.
"""
import contextlib
import itertools
import statistics
import time

import reuse
from contenders import Contender
from measure import medians
from pages import fake, scaled
from paging import program, serving, sorting
from report import Result

WINDOW_MS = 50
WINDOWS = 600               # half a minute: more than the longest move takes on this link
MBIT_S = 941                # TCP's payload on 1 Gbit/s
LIMITS_MS = (300, 60)       # Godwit's default, and one as Xen had it
WAYS = ("off", "auto", "lru", "lru-splay-1", "lru-splay", "written", "optimum")
PAPER = (("sent", "pages", 1 - 0.2367), ("ms", "total", 1 - 0.1145))    # of off's: what it found


def record(bench, contender, load, file):
    """What the guest does for a while, once it is at work."""
    with bench.guest(contender, load) as (vm, _):
        time.sleep(1 if bench.quick else bench.stay)    # the procedure: it is at work for a while
        return program(bench, "trace", vm.pid, vm.monitor, WINDOWS // 10 if bench.quick else WINDOWS,
                       WINDOW_MS, file)[0]


def played(bench, name, repetition, trace, file):
    runs = {limit: program(bench, "replay", file, MBIT_S, limit)[0] for limit in LIMITS_MS}
    for limit, run in runs.items():
        bench.say(f"{repetition}/{bench.repetitions} {name}, {limit} ms: {trace['written']:.0f} pages written in "
                  f"{trace['window-ms']:.0f} ms; sent " +
                  ", ".join(f"{way} {run[way]['sent']}" for way in WAYS if run[way]))
    return {"contender": name, "repetition": repetition, "trace": trace, "ways": runs}


def loads(bench, stack):
    """What transacts, streams, sorts, and a set that is written all over at a fixed rate."""
    mib = scaled(bench, reuse.STREAM_MIB)
    return {"memcached": serving(bench), "shop": stack.enter_context(reuse.shop_load(bench)),
            "stream": stack.enter_context(reuse.stream_load(bench, mib)), "sort": sorting(bench),
            "rewrite": fake(bench, "")}


def row(first, way, runs, off):
    rows = [run[way] for run in runs if run[way]]
    if not rows:
        return [*first, way, "never"] + ["-"] * 7
    m = medians(rows, *rows[0])
    return [*first, way, f"{m['sent']:.0f}", f"{m['sent'] / off['sent']:.3f}", f"{m['ms']:.0f}",
            f"{m['ms'] / off['ms']:.3f}",
            *(f"{m[key]:.0f}" if key in m else "-" for key in ("stopped-ms", "rounds", "predicted", "hits"))]


def policies(bench):
    result = Result("predict-policies", "which pages wait: each way on the same trace of a guest")
    targets = {(limit, key): result.target(f"{limit} ms: lru-splay's {what} <= {share:.4f} x off's, the mean of "
                                           "the loads (the paper's)", share)
               for limit in LIMITS_MS for key, what, share in PAPER}
    contender = Contender(bench.setup, "godwit", {"options": []})
    file = bench.setup.folder / "trace"
    with contextlib.ExitStack() as stack:
        of = loads(bench, stack)
        for repetition, name in bench.all_in_turn(list(of)):
            trace = record(bench, contender, of[name], file)
            result.runs.append(played(bench, name, repetition, trace, file))
    result.columns = ["load", "limit", "way", "pages sent", "of off's", "total ms", "of off's", "stopped ms", "rounds",
                      "predicted", "of these written"]
    shares = {key: [] for key in targets}
    for name, limit in itertools.product(of, LIMITS_MS):
        runs = [run["ways"][limit] for run in result.runs if run["contender"] == name]
        off = medians([run["off"] for run in runs], "sent", "ms")
        result.rows += [row((name, f"{limit} ms"), way, runs, off) for way in WAYS]
        splay = medians([run["lru-splay"] for run in runs], "sent", "ms")
        for key in ("sent", "ms"):
            shares[limit, key].append(splay[key] / off[key])
    for key, target in targets.items():
        target.measured = statistics.mean(shares[key])
        target.measured_text = f"{target.measured:.3f} x"
    result.notes.append(f"{WINDOWS} windows of {WINDOW_MS} ms; replayed at {MBIT_S} Mbit/s, "
                        "every page in full (replay.c says how). What watching costs the "
                        "guest is in its trace, for all ways alike")
    return result


ALL = {"predict-policies": policies}
