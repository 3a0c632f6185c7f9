# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured. Each scenario returns a report.Result; README.md has their meaning.

Here are the foundation's; those of the page pipeline are in pages.py, of post-copy in postcopy.py,
of memory reuse in reuse.py, of split migration in split.py, after.py and paging.py.
"""
import contextlib
import json
import statistics
import subprocess
import time

import after
import guest
import journey
import pages
import paging
import postcopy
import predict
import reuse
import split
import teleport
from contenders import VM
from hosts import GIB, Failure, children, cpu_seconds, end, wait_until
from measure import (FILL_SECONDS, Mover, by_contender, godwit_parts, medians, move_all, move_table,
                     units_for, watch)
from report import Result

USUAL = ("godwit", "qemu", "qemu-multifd")
SCANS = 100


def move_idle(bench, rate):
    return move_all(bench, rate, [Mover(contender.name, contender, bench.idle)
                                  for contender in bench.contenders(*USUAL)])


def fastest_rival(groups):
    """The best median among stock QEMU's ways, without the start of its destination."""
    totals = {name: statistics.median(run["total-ms"] for run in rows)
              for name, rows in groups.items() if not name.startswith("godwit")}
    return min(totals.items(), key=lambda item: item[1]) if totals else None


def idle_unshaped(bench):
    result = Result("idle-unshaped", "an idle guest moves over an unshaped link")
    target = result.target("godwit's total <= 0.4 x the best of stock QEMU", 0.4)
    result.runs = move_idle(bench, "")
    groups = by_contender(result.runs)
    move_table(result, groups)
    godwit_parts(result, groups)
    rival = fastest_rival(groups)
    if "godwit" in groups and rival:
        target.measured = medians(groups["godwit"], "total-ms")["total-ms"] / rival[1]
        target.measured_text = f"{target.measured:.3f} x {rival[0]}"
    return result


def idle_1gbit(bench):
    result = Result("idle-1gbit", "an idle guest moves over a 1 Gbit/s link")
    target = result.target("godwit's total <= 1.02 x its bytes / the link's measured bandwidth",
                           1.02)
    result.runs = move_idle(bench, "1gbit")
    groups = by_contender(result.runs)
    move_table(result, groups)
    godwit_parts(result, groups)
    bandwidth = medians(result.runs, "bandwidth")["bandwidth"]
    result.notes.append(f"the link carries {bandwidth * 8e-6:.1f} Mbit/s of TCP payload; "
                        "'total / link' is the total over what the same bytes take on it alone")
    if "godwit" in groups:
        target.measured = statistics.median(run["total-ms"] / run["link-ms"]
                                            for run in groups["godwit"])
        target.measured_text = f"{target.measured:.3f} x the link's time"
        rival = fastest_rival(groups)
        if rival:
            ratio = medians(groups["godwit"], "total-ms")["total-ms"] / rival[1]
            target.measured_text += f" ({ratio:.3f} x {rival[0]})"
    return result


def blackout(bench, name, rate, limit):
    """Only Godwit and QEMU's plain migration: the others stop the guest as QEMU does."""
    result = Result(name, f"the longest silence that a client sees, link {rate or 'unshaped'}")
    target = result.target(f"godwit <= {limit} ms", limit)
    bench.setup.network.up(rate)
    watched = [c for c in bench.contenders(*USUAL) if c.name in ("godwit", "qemu")]
    for repetition, contender in bench.all_in_turn(watched):
        with bench.guest(contender, bench.idle) as (vm, _):
            quiet, _ = watch(bench, lambda: time.sleep(2))
            bench.setup.memory.warm()
            seen, run = watch(bench, vm.move)
        run.update({"contender": contender.name, "repetition": repetition,
                    "silence-ms": seen["silence-ms"], "quiet-ms": quiet["silence-ms"],
                    "seen": seen, "quiet": quiet})
        result.runs.append(run)
        bench.say(f"{repetition}/{bench.repetitions} {contender.name}: silence "
                  f"{seen['silence-ms']:.1f} ms (unmoved {quiet['silence-ms']:.1f}), own account "
                  f"{run['downtime-ms']:.1f} ms")
    groups = by_contender(result.runs)
    result.columns = ["", "silence ms", "worst ms", "unmoved ms", "own downtime ms"]
    for key, rows in groups.items():
        m = medians(rows, "silence-ms", "quiet-ms", "downtime-ms")
        worst = max(row["silence-ms"] for row in rows)
        result.rows.append([key, f"{m['silence-ms']:.1f}", f"{worst:.1f}", f"{m['quiet-ms']:.1f}",
                            f"{m['downtime-ms']:.1f}"])
        result.bars.append((key, m["silence-ms"]))
    result.unit = "longest silence, ms"
    result.notes.append("a datagram each millisecond to the guest's UDP echo; 'unmoved' is the "
                        "longest silence in 4 s in which nothing moves")
    godwit_parts(result, groups)
    if "godwit" in groups:
        target.measured = medians(groups["godwit"], "silence-ms")["silence-ms"]
        target.measured_text = f"{target.measured:.1f} ms"
    return result


def blackout_unshaped(bench):
    return blackout(bench, "blackout-unshaped", "", 30)


def blackout_1gbit(bench):
    return blackout(bench, "blackout-1gbit", "1gbit", 60)


def units_while_moving(bench, vm, bandwidth):
    """The same inside a migration that never ends; and what its worker costs."""
    a = vm.daemon
    client = vm.begin("--max-bandwidth", bandwidth)
    try:
        wait_until(lambda: client.poll() is not None or
                   a.call("status", VM, "--json")["status"] == "active", 30, "the migration")
        time.sleep(1)
        workers = children(a.process.pid)
        before, began = sum(map(cpu_seconds, workers)), time.monotonic()
        units = units_for(vm, bench.phase_seconds)
        worker = (sum(map(cpu_seconds, workers)) - before) / (time.monotonic() - began)
        if client.poll() is not None:
            raise Failure(f"the migration ended by itself: {client.communicate()[1].strip()}")
        rounds = a.call("status", VM, "--json")["ram"]["dirty-sync-count"]
        a.call("cancel", VM)
        client.communicate(timeout=30)
    finally:
        end(client)
    return units, worker, rounds


def tracking_one(bench, contender, mib, bandwidth, result):
    """One guest, with and without a migration under way, alternately."""
    without, during, workers, rounds = [], [], [], 0
    with contender.start(guest.Load(f"busy:{mib}")) as vm:
        vm.console.wait("busy: filled", FILL_SECONDS)
        units_for(vm, 3)
        for _ in range(bench.repetitions):
            without += units_for(vm, bench.phase_seconds)
            units, worker, done = units_while_moving(bench, vm, bandwidth)
            during += units
            workers.append(worker)
            rounds = max(rounds, done)
            time.sleep(1)
        without += units_for(vm, bench.phase_seconds)
    before = without[:bench.phase_seconds]
    loss = 1 - statistics.median(during) / statistics.median(without)
    mean_loss = 1 - statistics.mean(during) / statistics.mean(without)
    result.rows.append([f"busy:{mib}", bandwidth, f"{statistics.median(before):.0f}",
                        f"{statistics.median(without):.0f}",
                        f"{statistics.median(during):.0f}", f"{loss * 100:.1f} %",
                        f"{mean_loss * 100:.1f} %", str(rounds),
                        f"{statistics.median(workers) * 100:.1f} %"])
    result.bars.append((f"busy:{mib} {bandwidth}/s", loss * 100))
    result.runs.append({"workload": f"busy:{mib}", "max-bandwidth": bandwidth,
                        "units-without": without, "units-during": during, "loss": loss,
                        "mean-loss": mean_loss, "rounds": rounds, "worker-cpu": workers})
    bench.say(f"busy:{mib} at {bandwidth}/s: loses {loss * 100:.1f} %")
    return loss


def tracking(bench):
    result = Result("tracking", "what tracked memory costs a busy guest")
    target = result.target("<= 3 % less work inside a round than without a migration", 3)
    result.columns = ["", "limit/s", "units/s before", "without", "during", "loss", "mean loss", "rounds",
                      "worker CPU"]
    result.unit = "work lost, %"
    bench.setup.network.up("")
    godwit = [c for c in bench.contenders(*USUAL) if c.name == "godwit"]
    if not godwit:
        return result
    losses = [tracking_one(bench, godwit[0], mib, "1M", result) for mib in (64, 256)]
    target.measured = max(losses) * 100
    target.measured_text = f"{target.measured:.1f} % (the worse of the two)"
    result.notes.append("medians of units of work per guest second, migration and none alternately. "
                        "At 1 MiB/s the streams do next to nothing, so the loss is the tracker's. "
                        "'before': in the first of these times, when nothing had ever been tracked")
    return result


def scan_with(bench, vm, threads):
    done = subprocess.run([str(bench.setup.build / "bench/scan"), str(vm.pid), str(vm.monitor),
                           str(SCANS), str(threads)], capture_output=True, text=True)
    if done.returncode:
        raise Failure(done.stderr.strip())
    run = json.loads(done.stdout)
    run["ms-per-gib"] = run["median-ms"] / (run["bytes"] / GIB)
    return run


def scan(bench):
    result = Result("scan", "one scan for written pages, idle guest")
    target = result.target("<= 1 ms per GiB", 1)
    godwit = [c for c in bench.contenders(*USUAL) if c.name == "godwit"]
    if not godwit:
        return result
    counts = sorted({1, bench.setup.streams})
    for repetition in range(1, bench.repetitions + 1):
        with bench.guest(godwit[0], bench.idle) as (vm, _):
            for threads in counts:
                result.runs.append(scan_with(bench, vm, threads))
                bench.say(f"{repetition}/{bench.repetitions} {threads} threads: "
                          f"{result.runs[-1]['ms-per-gib']:.2f} ms per GiB")
    result.columns = ["", "GiB", "protect all ms", "scan ms", "90 % below ms", "pages due",
                      "ms per GiB"]
    for threads in counts:
        m = medians([run for run in result.runs if run["threads"] == threads], "bytes", "protect-ms",
                    "median-ms", "p90-ms", "due-pages", "ms-per-gib")
        result.rows.append([f"{threads} threads", f"{m['bytes'] / GIB:g}",
                            f"{m['protect-ms']:.2f}", f"{m['median-ms']:.2f}",
                            f"{m['p90-ms']:.2f}", f"{m['due-pages']:.0f}",
                            f"{m['ms-per-gib']:.2f}"])
    target.measured = m["ms-per-gib"]
    target.measured_text = f"{target.measured:.2f} ms per GiB with {threads} threads"
    result.notes.append(f"medians of {SCANS} scans, 10 ms apart, through the product's own libraries; "
                        "a migration scans with as many threads as it has streams")
    return result


FOUNDATION = {
    "idle-unshaped": idle_unshaped,
    "idle-1gbit": idle_1gbit,
    "blackout-unshaped": blackout_unshaped,
    "blackout-1gbit": blackout_1gbit,
    "tracking": tracking,
    "scan": scan,
}
ALL = {**FOUNDATION, **journey.ALL, **pages.ALL, **postcopy.ALL,
       **reuse.ALL, **split.ALL, **after.ALL, **paging.ALL, **predict.ALL, **teleport.ALL}
GROUPS = {"foundation": list(FOUNDATION), "pages": list(pages.ALL),
          "postcopy": list(postcopy.ALL), "reuse": list(reuse.ALL),
          "split": list(split.ALL), "after": [*after.ALL, *paging.ALL],
          "predict": list(predict.ALL),
         "teleport": list(teleport.ALL),
          "all": list(ALL)}
