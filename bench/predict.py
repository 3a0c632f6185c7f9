# SPDX-License-Identifier: GPL-2.0-or-later
"""What is won by knowing which pages a guest will write next (Zaw and Thein).

Without a move: what a guest accesses and writes is recorded in short windows (trace.c), and each way
to choose the pages that wait is played on that (replay.c), beside the one that knows what comes. And in
moves, in each mode, beside QEMU's.
"""
import contextlib
import functools
import itertools
import statistics
import time

import reuse
from contenders import KINDS, Contender
from hosts import MIB
from measure import Mover, by_contender, ended, medians, move_all
from pages import RATE, fake, filled, scaled
from paging import program, serving, sorting
from report import Result

WINDOW_MS = 50
WINDOWS = 600               # half a minute: more than the longest move takes on this link
MBIT_S = 941                # TCP's payload on 1 Gbit/s
LIMITS_MS = (300, 60)       # Godwit's default, and a strict one
WAYS = ("off", "auto", "lru", "lru-splay-1", "lru-splay", "written", "optimum")
HOT_MIB, HOT_RATE = 14, 100     # a seventh of a second: each round longer than that finds all of it written
WARM_MIB, WARM_RATE = 120, 76
COMPILER_MIB = 320
MODES = ("off", "lru", "lru-splay", "auto")
NONE = {"predicted": 0, "hits": 0, "preprocess-ms": 0}
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


@contextlib.contextmanager
def compile_load(bench):
    """A compiler and its sources, which lab/mkguest got from Debian."""
    with reuse.disk(bench, COMPILER_MIB, bench.setup.images / "compiler") as path:
        yield filled("compile:/disk", fill_mib=bench.fill_mib // 2, ready=[("compile: ", 3)], disk=path,
                     writable=True)


def loads(bench):
    """What compiles, streams, transacts (the paper's four), sorts, and a set that is written all over at a
    fixed rate: one by one, as their disks are the same file."""
    mib = scaled(bench, reuse.STREAM_MIB)
    of = {"compile": functools.partial(compile_load, bench),
          "memcached": reuse.always(serving(bench)), "shop": functools.partial(reuse.shop_load, bench),
          "stream": functools.partial(reuse.stream_load, bench, mib), "sort": reuse.always(sorting(bench)),
          "rewrite": reuse.always(fake(bench, ""))}
    for name, make in of.items():
        with make() as load:
            yield name, load


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
    for name, load in loads(bench):
        for repetition in range(1, bench.repetitions + 1):
            trace = record(bench, contender, load, file)
            result.runs.append(played(bench, name, repetition, trace, file))
    result.columns = ["load", "limit", "way", "pages sent", "of off's", "total ms", "of off's", "stopped ms", "rounds",
                      "predicted", "of these written"]
    shares = {key: [] for key in targets}
    for name, limit in itertools.product(by_contender(result.runs), LIMITS_MS):
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


def bytes_per_round(result, load, groups):
    """The paper's Figs. 6 to 9: what each round sent, in each mode's first repetition."""
    part = Result(f"{result.name}-{load}", f"bytes of each round, {load}")
    part.unit, part.axis = "MiB", "round"
    for mode in MODES:
        rounds = groups[f"{mode}, {load}"][0]["detail"]["godwit"]["rounds"]
        part.series.append((mode, [(one["round"], one["wire-bytes"] / MIB) for one in rounds]))
    return part


def moves(bench, name, title, plain):
    """The paper's four kinds of load, as far as a guest here has them, moved in each mode."""
    result = Result(name, title)
    options = KINDS["godwit-plain"]["options"] if plain else []
    contenders = {mode: Contender(bench.setup, f"godwit-{mode}", {
        "options": ["--no-reuse", *options, "--working-set", mode]}) for mode in MODES}
    contenders["qemu"] = Contender(bench.setup, "qemu", KINDS["qemu"])
    for name, load in loads(bench):
        movers = [Mover(f"{mode}, {name}", contender, load) for mode, contender in contenders.items()]
        result.runs += move_all(bench, RATE, movers, bench.give_up)
    groups = by_contender(result.runs)
    result.parts = [bytes_per_round(result, load, groups) for load in dict.fromkeys(
        name.split(", ")[1] for name in groups)]
    result.columns = ["load", "mode", "total s", "of off's", "on link MiB", "of off's", "downtime ms", "rounds",
                      "waited", "hits", "looked ms"]
    shares = {}
    for mode, load in (name.split(", ") for name in groups):
        rows, off = groups[f"{mode}, {load}"], medians(groups[f"off, {load}"], "total-ms", "on-link")
        m = medians(rows, "total-ms", "on-link", "downtime-ms")
        said = medians([{"rounds": row["detail"]["ram"]["dirty-sync-count"],
                         **row["detail"].get("godwit", {}).get("working-set", NONE)} for row in rows],
                       "rounds", "predicted", "hits", "preprocess-ms")
        result.rows.append([load, mode if all(row["ended"] for row in rows) else f"{mode} (given up)",
                            f"{m['total-ms'] / 1e3:.2f}", f"{m['total-ms'] / off['total-ms']:.3f}",
                            f"{m['on-link'] / MIB:.0f}", f"{m['on-link'] / off['on-link']:.3f}",
                            "-" if m["downtime-ms"] is None else f"{m['downtime-ms']:.0f}",
                            *(f"{said[key]:.0f}" for key in ("rounds", "predicted", "hits", "preprocess-ms"))])
        for key in ("total-ms", "on-link"):
            shares.setdefault((mode, key), []).append(m[key] / off[key])
    wanted = [("lru-splay", key, what, share, statistics.mean) for key, what, share in
              (("on-link", "bytes", PAPER[0][2]), ("total-ms", "total", PAPER[1][2]))] if plain else []
    wanted += [("auto", key, what, 1.02, max) for key, what in (("on-link", "bytes"), ("total-ms", "total"))]
    for mode, key, what, share, of_all in wanted:
        of_which = "the mean of the loads (the paper's)" if of_all is statistics.mean else "each load"
        target = result.target(f"{mode}'s {what} <= {share:.4f} x off's, {of_which}", share)
        target.measured = of_all(shares[mode, key])
        target.measured_text = f"{target.measured:.3f} x"
    return result


def moves_plain(bench):
    return moves(bench, "predict-plain-1gbit", "which pages wait, every other stage off, as in the paper's comparison",
                 True)


def moves_all(bench):
    return moves(bench, "predict-1gbit", "which pages wait, with every stage", False)


def converge(bench):
    """
    What is hot and would fit into the last round keeps the others from ever fitting beside it: each round
    sends it, and lasts so much longer, in which so much more of the others is written.
    """
    result = Result("predict-converge-1gbit", "a small hot set beside a large one that is written at two thirds of "
                    "the link")
    sooner = result.target("auto's downtime <= the limit where off is given up", LIMITS_MS[0])
    load = filled(f"wset:{HOT_MIB}:{HOT_RATE}:0", f"wset:{WARM_MIB}:{WARM_RATE}:0",
                  fill_mib=max(bench.fill_mib - HOT_MIB - WARM_MIB, 64), ready=[("wset: ", 6)])
    plain = KINDS["godwit-plain"]["options"]
    result.runs = move_all(bench, RATE, [
        Mover(mode, Contender(bench.setup, f"godwit-{mode}", {"options": [*options, "--working-set", which]}), load)
        for mode, which, options in (("off", "off", plain), ("auto", "auto", plain),
                                     ("off, all stages", "off", []), ("auto, all stages", "auto", []))] +
        [Mover("qemu", Contender(bench.setup, "qemu", KINDS["qemu"]), load)], bench.give_up)
    groups = by_contender(result.runs)
    result.columns = ["", "ended", "total s", "on link MiB", "downtime ms", "rounds", "waited", "hits"]
    for name, rows in groups.items():
        m = medians(rows, "total-ms", "on-link", "downtime-ms")
        said = medians([{"rounds": row["detail"]["ram"]["dirty-sync-count"],
                         **row["detail"].get("godwit", {}).get("working-set", NONE)} for row in rows],
                       "rounds", "predicted", "hits")
        result.rows.append([name, f"{sum(row['ended'] for row in rows)} of {len(rows)}", f"{m['total-ms'] / 1e3:.2f}",
                            f"{m['on-link'] / MIB:.0f}",
                            "-" if m["downtime-ms"] is None else f"{m['downtime-ms']:.0f}",
                            *(f"{said[key]:.0f}" for key in ("rounds", "predicted", "hits"))])
    if ended(groups["auto"]) and not ended(groups["off"]):
        sooner.measured = medians(groups["auto"], "downtime-ms")["downtime-ms"]
        sooner.measured_text = f"{sooner.measured:.0f} ms"
    elif not ended(groups["auto"]):
        sooner.missed = True
        sooner.measured_text = "given up as well"
    result.notes.append(f"{HOT_MIB} MiB written at {HOT_RATE} MiB/s, {WARM_MIB} MiB at {WARM_RATE}")
    return result


ALL = {"predict-policies": policies, "predict-plain-1gbit": moves_plain, "predict-1gbit": moves_all,
       "predict-converge-1gbit": converge}
