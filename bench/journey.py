# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that moves on and on: what a client of it does not hear on any leg.

Each leg leaves a host to which the guest came with its memory in a file, with what
earlier legs left there. One guest for each load, from idle to one that writes almost
as fast as the link carries.
"""
import contextlib
import time

import contenders
import guest
from hosts import Failure
from report import Result

LINK = "1gbit"
LIMIT_MS = 300          # what the user allows
MARGIN_MS = 50          # beside it, for what a client sees and the source cannot: ARP, its own timer
LEGS, QUICK_LEGS = 10, 4
SECONDS_BETWEEN = 5     # on a host, in which it works
WATCHED = 1.0           # seconds before and after each leg
FILL_SECONDS = 240

# The link carries 112 MiB/s of pages. 31 MiB/s are 8000 pages.
LOADS = {
    "idle": None,
    "200 MiB at 8 MiB/s": "wset:200:8:0",
    "200 MiB at 31 MiB/s": "wset:200:31:0",
    "200 MiB at 60 MiB/s": "wset:200:60:0",
    "200 MiB at 85 MiB/s": "wset:200:85:0",
}
QUICK_LOADS = {"idle": None, "50 MiB at 31 MiB/s": "wset:50:31:0"}


def load_of(bench, words):
    if not words:
        return bench.idle
    return guest.Load(words, ready=[("wset: filled", 1)])


def leg_of(bench, vm, name, number):
    """The guest goes to the other host; what a client saw, and Godwit's own account."""
    bench.setup.memory.warm()
    with contextlib.closing(guest.Blackout(bench.setup.build, bench.setup.network)) as client:
        time.sleep(WATCHED)
        run = vm.move(bench.give_up)
        time.sleep(WATCHED)
        seen = client.finish()
    run.update(contender=name, leg=number, seen=seen, **{"silence-ms": seen["silence-ms"]})
    return run


def row_of(run):
    if not run["ended"]:
        return [f"{run['contender']}, leg {run['leg']}", "-", "-", "-", "-", "-", "never ended"]
    detail, own = run["detail"], run["detail"]["godwit"]
    switchover = own["switchover"]
    return [f"{run['contender']}, leg {run['leg']}", f"{run['silence-ms']:.1f}",
            f"{run['downtime-ms']:.1f}", f"{detail['expected-downtime']:.1f}",
            f"{switchover['final-pages-ms']:.1f}", f"{switchover['device-state-ms']:.1f}",
            f"{run['total-ms'] / 1e3:.2f} s, {len(own['rounds'])} rounds"]


def journey(bench):
    legs = QUICK_LEGS if bench.quick else LEGS
    result = Result("journey", f"{legs} legs there and back, link {LINK}, limit {LIMIT_MS} ms")
    target = result.target(f"on every leg a client hears nothing for <= {LIMIT_MS + MARGIN_MS} ms",
                           LIMIT_MS + MARGIN_MS)
    result.columns = ["", "silence ms", "own downtime", "expected", "final pages", "device state",
                      "all"]
    result.unit = "longest silence, ms"
    kind = {"options": ["--downtime-limit", str(LIMIT_MS)]}
    contender = contenders.Contender(bench.setup, "godwit", kind)
    bench.setup.network.up(LINK)
    for name, words in (QUICK_LOADS if bench.quick else LOADS).items():
        worst = 0
        with bench.guest(contender, load_of(bench, words)) as (vm, _):
            for number in range(1, legs + 1):
                try:
                    run = leg_of(bench, vm, name, number)
                except Failure as error:
                    target.missed = True
                    result.notes.append(f"{name}, leg {number}: {error}")
                    bench.say(f"{name}, leg {number}: FAILED: {error}")
                    break
                result.runs.append(run)
                result.rows.append(row_of(run))
                bench.say("  ".join(result.rows[-1]))
                if not run["ended"]:
                    target.missed = True
                    result.notes.append(f"{name}, leg {number} had not ended after "
                                        f"{bench.give_up} s: the guest stayed where it was")
                    break
                worst = max(worst, run["silence-ms"])
                time.sleep(SECONDS_BETWEEN)
        result.bars.append((name, worst))
    silences = [run["silence-ms"] for run in result.runs if run["ended"]]
    if silences:
        target.measured = max(silences)
        target.measured_text = f"{target.measured:.1f} ms, the worst of {len(silences)} legs"
    result.notes.append("a datagram each millisecond to the guest's UDP echo, from 1 s before a "
                        "leg to 1 s after it; the other columns are Godwit's own account, in ms")
    return result


ALL = {"journey": journey}
