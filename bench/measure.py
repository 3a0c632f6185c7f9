# SPDX-License-Identifier: GPL-2.0-or-later
"""What scenarios share: guests under a load, moves in turn, medians, tables."""
import collections
import contextlib
import statistics
import sys
import time

import contenders
import guest
from hosts import MIB, Failure, wait_until

FILL_SECONDS = 240
BLACKOUT_MARGIN = 1.0   # seconds watched before and after a move
AFTER = 3.0     # seconds for which a load goes on after the move

# Who moves which guest, and what the table calls that.
Mover = collections.namedtuple("Mover", "name contender load")


class Bench:
    """What the scenarios work with."""

    def __init__(self, setup, chosen, repetitions, fill_mib, phase_seconds, give_up, stay,
                 quick):
        self.setup = setup
        self.chosen = chosen            # contenders' names; None: the scenario's own choice
        self.give_up = give_up          # seconds for a move that may never end
        self.repetitions = repetitions
        self.fill_mib = fill_mib
        self.phase_seconds = phase_seconds
        self.stay = stay                # seconds on a host before a guest leaves it again
        self.quick = quick

    def say(self, text):
        print(f"  {text}", file=sys.stderr, flush=True)

    def contenders(self, *usual):
        return [contenders.Contender(self.setup, name, contenders.KINDS[name])
                for name in self.chosen or usual]

    @property
    def idle(self):
        """Memory full of random data, which the guest has stopped to touch."""
        return guest.Load(f"fill:{self.fill_mib}", ready=[("fill: filled", 1)], quiet=True)

    @contextlib.contextmanager
    def guest(self, contender, load):
        """A guest under a load, filled, and the client that loads it, if any."""
        with contextlib.ExitStack() as stack:
            vm = stack.enter_context(contender.start(load))
            for text, count in load.ready:
                vm.console.wait(text, FILL_SECONDS, count)
            if load.quiet:
                guest.wait_quiet(vm.pid)
            client = None
            if load.client:
                kind, *words = load.client
                client = stack.enter_context(contextlib.closing(
                    kind(self.setup.build, self.setup.network, *words, FILL_SECONDS)))
            yield vm, client

    def all_in_turn(self, these):
        """Each of them as often as wished, alternately, so that all see the same machine."""
        for repetition in range(1, self.repetitions + 1):
            for one in these:
                yield repetition, one


def medians(rows, *keys):
    """The medians of rows' values, by key; None where they have none."""
    result = {}
    for key in keys:
        values = [row[key] for row in rows if row[key] is not None]
        result[key] = statistics.median(values) if values else None
    return result


def by_contender(runs):
    """Runs grouped by contender (or mover), in the order of first appearance."""
    groups = {}
    for run in runs:
        groups.setdefault(run["contender"], []).append(run)
    return groups


def spread(rows, key):
    """How far apart the values of repetitions lie, relative to their median."""
    values = [row[key] for row in rows]
    return (max(values) - min(values)) / statistics.median(values)


def move_once(bench, vm, give_up=None, **more):
    """A guest moves to the other host; the run, with what its host put on the link."""
    bench.setup.memory.warm()
    network, source = bench.setup.network, vm.host
    before = network.sent(source)
    run = vm.move(give_up, **more)
    run["on-link"] = network.sent(source) - before
    return run


def say_run(bench, repetition, name, run):
    how = f"downtime {run['downtime-ms']:.0f} ms" if run["ended"] else "given up"
    bench.say(f"{repetition}/{bench.repetitions} {name}: "
              f"{run['total-ms'] / 1e3:.2f} s, {run['transferred'] / MIB:.0f} MiB "
              f"({run['on-link'] / MIB:.0f} on the link), {how}")


def watch(bench, doing):
    """What a client in the guest's network sees while doing() happens, and what that returns."""
    with contextlib.closing(guest.Blackout(bench.setup.build, bench.setup.network)) as client:
        time.sleep(BLACKOUT_MARGIN)
        outcome = doing()
        time.sleep(BLACKOUT_MARGIN)
        return client.finish(), outcome


def move_all(bench, rate, movers, give_up=None, move=move_once):
    """Each mover moves its guest over a link of that rate; the runs."""
    bench.setup.network.up(rate)
    runs = []
    for repetition, mover in bench.all_in_turn(movers):
        bandwidth = bench.setup.network.measure_bandwidth()
        with bench.guest(mover.contender, mover.load) as (vm, client):
            run = move(bench, vm, give_up)
            if client:
                time.sleep(AFTER)
                run["client"] = client.finish()
                run["survived"] = survived(run["client"])
                if mover.name.startswith("godwit") and not run["survived"]:
                    raise Failure(f"{mover.name}: the guest's server did not survive: "
                                  f"{run['client']['error'] or 'no answer any more'}")
        run.update(contender=mover.name, repetition=repetition, bandwidth=bandwidth)
        # What the same bytes would take on this link alone.
        run["link-ms"] = run["transferred"] / bandwidth * 1e3
        runs.append(run)
        say_run(bench, repetition, mover.name, run)
    return runs


def units_for(vm, seconds):
    """What busy gets done in each second of the next seconds."""
    first = len(vm.console.numbers("busy")) + 1  # the line that is under way does not count
    wait_until(lambda: len(vm.console.numbers("busy")) >= first + seconds, seconds * 3 + 10,
               "the busy guest's reports", pause=0.2)
    return vm.console.numbers("busy")[first:first + seconds]


def survived(client):
    """Whether the guest's server answers after the move, and rightly."""
    return not client["broken"] and client["silent-ms"] < AFTER * 1e3 / 2


def ended(rows):
    return all(row["ended"] for row in rows)


def ratio(groups, key, name, rival):
    """name's median over rival's, and how to write it; None if there is none.

    A move that was given up would have taken longer and sent more. So a rival's
    makes the ratio an upper bound, and one of name's leaves nothing to say.
    """
    if name not in groups or rival not in groups or not ended(groups[name]):
        return None, "-"
    value = medians(groups[name], key)[key] / medians(groups[rival], key)[key]
    return value, f"{'' if ended(groups[rival]) else '<= '}{value:.3f}"


def hold(target, groups, key, name, rival):
    """Judge a target that is the limit of such a ratio."""
    if name in groups and not ended(groups[name]):
        target.missed = True
        target.measured_text = f"{name} did not end"
        return
    target.measured, text = ratio(groups, key, name, rival)
    if target.measured is not None:
        target.measured_text = f"{text} x {rival}"


def move_table(result, groups):
    result.columns = ["", "total s", "with start s", "downtime ms", "MiB sent", "on link", "rounds",
                      "Gbit/s", "total / link", "spread", "godwit's time x", "bytes x"]
    for name, rows in groups.items():
        for row in rows:
            row["rounds"] = row["detail"]["ram"]["dirty-sync-count"]
        m = medians(rows, "total-ms", "start-ms", "downtime-ms", "transferred", "on-link",
                    "link-ms", "rounds")
        with_start = m["total-ms"] + (m["start-ms"] or 0)
        above = "" if ended(rows) else "> "
        downtime = "-" if m["downtime-ms"] is None else f"{m['downtime-ms']:.1f}"
        result.rows.append([name, f"{above}{m['total-ms'] / 1e3:.2f}",
                            f"{above}{with_start / 1e3:.2f}", downtime,
                            f"{above}{m['transferred'] / MIB:.0f}",
                            f"{above}{m['on-link'] / MIB:.0f}", f"{above}{m['rounds']:.0f}",
                            f"{m['transferred'] * 8e-6 / m['total-ms']:.2f}",
                            f"{m['total-ms'] / m['link-ms']:.3f}",
                            f"{spread(rows, 'total-ms') * 100:.0f} %",
                            ratio(groups, "total-ms", "godwit", name)[1],
                            ratio(groups, "on-link", "godwit", name)[1]])
        result.bars.append((name, m["total-ms"] / 1e3))
        if above:
            stopped = sum(not row["ended"] for row in rows)
            result.notes.append(f"{name}: {stopped} of {len(rows)} moves had not ended when they "
                                "were given up: '>' is what they had come to, '<=' what Godwit's "
                                "ratio to them is at most")
    result.unit = "total time, s"
    result.notes.append("total: from the request to the RESUME event at the destination. Godwit's "
                        "holds the start of the destination's QEMU; QEMU's does not, which "
                        "favours QEMU. 'with start' has it for all.")


def godwit_parts(result, groups):
    """Where Godwit's time went, by its own account."""
    runs = [run for run in groups.get("godwit", ()) if run["ended"]]
    if not runs:
        return
    parts = []
    for run in runs:
        own = run["detail"]["godwit"]
        parts.append({"setup": run["detail"]["setup-time"],
                      "round 1": own["rounds"][0]["ms"],
                      "later rounds": sum(r["ms"] for r in own["rounds"][1:-1]),
                      **{name[:-3]: ms for name, ms in own["switchover"].items()}})
    m = medians(parts, *parts[0])
    result.notes.append("godwit's medians in ms: " +
                        ", ".join(f"{name} {ms:.1f}" for name, ms in m.items()))


def godwit_stages(result, groups):
    """What became of the pages, by Godwit's own account."""
    for name, rows in groups.items():
        own = [row["detail"]["godwit"] for row in rows if "godwit" in row["detail"]]
        if not own:
            continue
        said = []
        for stage in own[0]["pages"]:
            pages = statistics.median(one["pages"][stage] for one in own)
            mib = statistics.median(one["bytes"].get(stage, 0) for one in own) / MIB
            if pages:
                said.append(f"{stage} {pages:.0f}" + (f" ({mib:.1f} MiB)" if mib >= 0.05 else ""))
        result.notes.append(f"{name}'s pages: {', '.join(said)}")
