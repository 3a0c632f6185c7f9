# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory reuse's scenarios: a guest leaves a host, and comes back to it.

The procedure is the paper's: a load runs on host a, then the guest moves to b
(leg 1), the load runs there for as long, and the guest moves back (leg 2). Both
hosts begin each time as hosts that have never seen the guest.
"""
import contextlib
import functools
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile
import time

import guest
from contenders import Contender
from hosts import MIB, Failure, Late
from measure import (AFTER, by_contender, ended, godwit_stages, hold, medians, move_once, say_run,
                     spread, survived, units_for)
from pages import filled, scaled
from report import Result

RATE = "1gbit"
USUAL = ("godwit", "godwit-no-reuse", "qemu")
LEGS = (1, 2)
LIVES_SECONDS = 20          # in which a load must be seen to go on after a move
WEB_KIB = 128               # a file; 100 of them a second are 105 Mbit/s, as in the paper
STREAM_MIB, STREAM_RATE = 256, 16
SHOP_WAREHOUSES, SHOP_RATE = 8, 400
SHOP_STAYS = 6              # times as long: until more than half of its pages have changed
TRACKED_MIB = (64, 256)
# What became of a page that was sent and has data; other stages send none of it.
SENT = ("raw", "compressed", "delta", "duplicate", "patched")


def own(run, kind, stage):
    """A count of Godwit's own account; 0 where a build has no such stage."""
    return run["detail"].get("godwit", {}).get(kind, {}).get(stage, 0)


def contenders(bench, result, *more):
    """The usual ones, Godwit with more options; a build without reuse runs too, and says so."""
    known = "--no-reuse" in subprocess.run([str(bench.setup.build / "src/godwit"), "migrate", "--help"],
                                           capture_output=True, text=True).stdout
    if not known:
        result.notes.append("THIS GODWIT KEEPS NO IMAGES: with reuse and without are the same here")
    chosen = []
    for contender in bench.contenders(*USUAL):
        if "options" in contender.kind:
            options = [word for word in contender.kind["options"] if known or word != "--no-reuse"]
            contender = Contender(bench.setup, contender.name, {"options": [*options, *more]})
        chosen.append(contender)
    return chosen


@contextlib.contextmanager
def disk(bench, mib, folder=None):
    """An ext4 in a file in memory, empty or with a folder's files."""
    path = bench.setup.folder / "disk.img"
    try:
        with open(path, "wb") as file:
            file.truncate(mib * MIB)
        # Few inodes, and none left to be made ready later, by whom nobody has asked.
        done = subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-N", "8192",
                               "-E", "lazy_itable_init=0,lazy_journal_init=0",
                               *(["-d", str(folder)] if folder else []), str(path)],
                              capture_output=True, text=True)
        if done.returncode:
            raise Failure(f"mke2fs: {done.stderr.strip()}")
        yield path
    finally:
        path.unlink(missing_ok=True)


def begin_anew(bench):
    for daemon in bench.setup.daemons.values():
        daemon.begin_anew()


def wrong(vm):
    return "BAD" in vm.console.text()


def lives(vm, works):
    """Whether the guest's load goes on, by its console, and has found nothing wrong."""
    if works:
        try:
            vm.console.wait(f"{works}: ", LIVES_SECONDS, vm.console.text().count(f"{works}: ") + 2)
        except Late:
            return False
    return not wrong(vm)


def last_words(vm):
    """The lines of the console that tell best what became of the guest."""
    lines = [line.strip() for line in vm.console.text().splitlines()]
    return " / ".join(([line for line in lines if re.search("BAD|BUG:|panic", line)] or lines)[-2:])


def shares(runs):
    """How many of its pages with data each leg reused and patched, in %."""
    first = runs[0]["detail"].get("godwit")
    rounds = first["rounds"] if first else []
    data = rounds[0]["pages"] - own(runs[0], "pages", "zero") if rounds else 0
    for run in runs:
        for stage in ("reused", "patched"):
            run[stage] = own(run, "pages", stage) * 100 / data if data else None


def there_and_back(bench, contender, load, works, stay):
    """The runs of one guest: two legs, or fewer if it did not end one or was lost."""
    runs = []
    begin_anew(bench)
    with bench.guest(contender, load) as (vm, client):
        for leg in LEGS:
            time.sleep(stay)  # the procedure, not a wait for something
            well = not wrong(vm)
            plan = vm.plan() if contender.name == "godwit" else None
            run = move_once(bench, vm, bench.give_up)
            run["plan"] = plan
            run.update(leg=leg, survived=well and lives(vm, works))
            run["last-words"] = last_words(vm)
            runs.append(run)
            if not (run["ended"] and run["survived"]):
                break
        if client:
            time.sleep(AFTER)
            run["client"] = client.finish()
            run["survived"] = run["survived"] and survived(run["client"])
    shares(runs)
    return runs


def move_both_ways(bench, result, movers, load, works, stay):
    """Each contender there and back, in turn; load() makes what belongs to one guest."""
    bench.setup.network.up(RATE)
    for repetition, contender in bench.all_in_turn(movers):
        ours = contender.name.startswith("godwit")
        with load() as one:
            try:
                runs = there_and_back(bench, contender, one, works, stay)
            except Failure as error:
                if ours:
                    raise
                result.notes.append(f"{contender.name}, repetition {repetition}: {error}")
                continue
        for run in runs:
            run.update(contender=f"{contender.name}, leg {run['leg']}", repetition=repetition)
            say_run(bench, repetition, run["contender"], run)
        result.runs += runs
        if not runs[-1]["survived"]:
            how = runs[-1].get("client", {}).get("error") or runs[-1]["last-words"]
            if ours:
                raise Failure(f"{runs[-1]['contender']}: the guest did not survive: {how}")
            result.notes.append(f"{runs[-1]['contender']}, repetition {repetition}: the guest DID "
                                f"NOT SURVIVE: {how}")


def percent(value):
    return "-" if value is None else f"{value:.1f} %"


def leg_table(result, groups):
    result.columns = ["", "total s", "with start s", "downtime ms", "MiB sent", "on link", "rounds",
                      "reused", "patched", "spread"]
    for name, rows in sorted(groups.items(), key=lambda item: item[1][0]["leg"]):
        for row in rows:
            row["rounds"] = row["detail"]["ram"]["dirty-sync-count"]
        m = medians(rows, "total-ms", "start-ms", "downtime-ms", "transferred", "on-link", "rounds",
                    "reused", "patched")
        above = "" if ended(rows) else "> "
        downtime = "-" if m["downtime-ms"] is None else f"{m['downtime-ms']:.1f}"
        result.rows.append([name, f"{above}{m['total-ms'] / 1e3:.2f}",
                            f"{above}{(m['total-ms'] + (m['start-ms'] or 0)) / 1e3:.2f}", downtime,
                            f"{above}{m['transferred'] / MIB:.1f}",
                            f"{above}{m['on-link'] / MIB:.1f}", f"{above}{m['rounds']:.0f}",
                            percent(m["reused"]), percent(m["patched"]),
                            f"{spread(rows, 'total-ms') * 100:.0f} %"])
        result.bars.append((name, m["total-ms"] / 1e3))
    result.unit = "total time, s"


def measure(bench, result, load, works, stay=None, options=()):
    """Both legs of all contenders; the table, and groups for the targets."""
    stay = stay or bench.stay
    move_both_ways(bench, result, contenders(bench, result, *options), load, works, stay)
    groups = by_contender(result.runs)
    leg_table(result, groups)
    result.notes.append(f"the paper's N minutes are {stay} s here, on each host, before each leg; "
                        "reused, patched: of the pages with data that leg 1 found")
    for name, rows in groups.items():
        clients = [row["client"] for row in rows if "client" in row]
        if clients:
            m = medians(clients, "per-second", "gap-ms")
            result.notes.append(f"{name}'s client, both legs: {m['per-second']:.0f} operations/s, "
                                f"longest time without an answer {m['gap-ms']:.0f} ms")
    godwit_stages(result, groups)
    hold_plan(result, groups)
    return groups


def hold_plan(result, groups):
    """What `godwit plan` predicted of leg 2, right before it, against what came."""
    rows = groups.get("godwit, leg 2", [])
    for what, predicted, came in (("bytes", "wire-bytes", "transferred"),
                                  ("time", "total-time", "total-ms")):
        target = result.target(f"godwit plan's {what} for leg 2 within 25 %", 25)
        off = [abs(row["plan"][predicted] / row[came] - 1) * 100 for row in rows]
        if off:
            target.measured = statistics.median(off)
            target.measured_text = f"{target.measured:.1f} % off"
    if rows:
        m = medians([{"bytes": row["plan"]["wire-bytes"], "ms": row["plan"]["total-time"]}
                     for row in rows], "bytes", "ms")
        result.notes.append(f"godwit plan predicted of leg 2: {m['bytes'] / MIB:.1f} MiB, "
                            f"{m['ms'] / 1e3:.2f} s")


def always(load):
    """A load that needs nothing of its own for each guest."""
    return lambda: contextlib.nullcontext(load)


def reuse_loop(bench):
    result = Result("reuse-loop-1gbit", "there and back, a busy loop")
    reused = result.target("godwit reuses >= 95 % of the pages in leg 2", 95, at_least=True)
    size = result.target("godwit's bytes in leg 2 <= 0.1 x those of leg 1", 0.1)
    departure = result.target("godwit's total in leg 1 <= 1.03 x that without reuse", 1.03)
    load = filled("cpu", fill_mib=bench.fill_mib, ready=[("cpu: ", 2)])
    groups = measure(bench, result, always(load), "cpu")
    if "godwit, leg 2" in groups:
        reused.measured = medians(groups["godwit, leg 2"], "reused")["reused"]
        reused.measured_text = percent(reused.measured)
    hold(size, groups, "on-link", "godwit, leg 2", "godwit, leg 1")
    if "godwit-no-reuse, leg 1" in groups:
        hold(departure, groups, "total-ms", "godwit, leg 1", "godwit-no-reuse, leg 1")
    return result


@contextlib.contextmanager
def web_disk(bench, files):
    folder = pathlib.Path(tempfile.mkdtemp(dir=bench.setup.folder))
    try:
        done = subprocess.run([str(bench.setup.build / "lab/webload"), "make", str(files),
                               str(WEB_KIB), str(folder)], capture_output=True, text=True)
        if done.returncode:
            raise Failure(done.stderr.strip())
        with disk(bench, files * WEB_KIB // 1024 * 5 // 4 + 64, folder) as path:
            shutil.rmtree(folder)
            yield path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def reuse_web(bench):
    result = Result("reuse-web-1gbit", "there and back, a static web server and its page cache")
    mib = bench.fill_mib // 2
    files = mib * 1024 // WEB_KIB
    with web_disk(bench, files) as path:
        load = filled("httpd:-f:-p:80:-h:/disk", fill_mib=bench.fill_mib - mib, disk=path,
                      client=(guest.WebLoad, files, WEB_KIB))
        measure(bench, result, always(load), None)
    return result


@contextlib.contextmanager
def stream_load(bench, mib):
    with disk(bench, 2 * mib + 128) as path:
        yield filled(f"stream:/disk:{mib}:{STREAM_RATE}", fill_mib=bench.fill_mib - 2 * mib,
                     ready=[("stream: ", 3)], disk=path, writable=True)


def reuse_stream(bench):
    result = Result("reuse-stream-1gbit", "there and back, a large file is read, another written")
    mib = scaled(bench, STREAM_MIB)
    measure(bench, result, functools.partial(stream_load, bench, mib), "stream")
    return result


@contextlib.contextmanager
def shop_load(bench, agent=None, warehouses=SHOP_WAREHOUSES):
    warehouses, share = (1, 50) if bench.quick else (warehouses, 100)
    with disk(bench, 128 + 128 * warehouses) as path:
        yield guest.Load(f"shop:/disk/shop.db:{warehouses}:{SHOP_RATE}:{share}",
                         ready=[("shop: ", 3)], disk=path, writable=True, agent=agent)


def blocks_over_pages(groups):
    """Bytes that reuse saved in leg 2, over those that whole pages alone would have saved.

    A page that is reused saves what a page with data took on average in leg 2
    without reuse: 4096 and its share of a header, or less if it was sent as a
    duplicate or a delta.
    """
    ours, without = groups.get("godwit, leg 2"), groups.get("godwit-no-reuse, leg 2")
    if not ours or not without:
        return None
    saved = medians(without, "on-link")["on-link"] - medians(ours, "on-link")["on-link"]
    cost = statistics.median(sum(own(run, "bytes", stage) for stage in SENT) /
                             max(sum(own(run, "pages", stage) for stage in SENT), 1)
                             for run in without)
    reused = statistics.median(own(run, "pages", "reused") for run in ours)
    return saved / (reused * cost) if reused * cost else None


def reuse_shop(bench):
    result = Result("reuse-shop-1gbit", "there and back, transactions on a database")
    blocks = result.target("bytes saved in leg 2 >= 1.6 x what whole pages alone would save", 1.6,
                           at_least=True)
    groups = measure(bench, result, functools.partial(shop_load, bench), "shop",
                     SHOP_STAYS * bench.stay, ("--compress", "none"))
    result.notes.append("godwit's without compression, with which bytes would not tell pages saved")
    blocks.measured = blocks_over_pages(groups)
    if blocks.measured is not None:
        blocks.measured_text = f"{blocks.measured:.2f} x"
    return result


def track(bench, contender, mib):
    """Work in each second of a guest that has just moved to host b."""
    begin_anew(bench)
    with bench.guest(contender, guest.Load(f"busy:{mib}", ready=[("busy: ", 3)])) as (vm, _):
        move_once(bench, vm)
        return units_for(vm, bench.phase_seconds)


def reuse_tracking(bench):
    result = Result("reuse-tracking", "what a guest pays on its new host for being tracked there")
    target = result.target("<= 1 % less work on host b than without reuse", 1)
    result.columns = ["", "units/s without", "with reuse", "loss", "mean loss"]
    result.unit = "work lost, %"
    bench.setup.network.up("")
    movers = [mover for mover in contenders(bench, result) if mover.name in USUAL[:2]]
    if len(movers) < 2:
        return result
    losses = []
    for mib in TRACKED_MIB:
        units = {mover.name: [] for mover in movers}
        for repetition, mover in bench.all_in_turn(movers):
            seconds = track(bench, mover, mib)
            units[mover.name] += seconds
            result.runs.append({"workload": f"busy:{mib}", "contender": mover.name,
                                "repetition": repetition, "units": seconds})
            bench.say(f"{repetition}/{bench.repetitions} {mover.name} busy:{mib}: "
                      f"{statistics.median(seconds):.0f} units/s")
        ours, without = units["godwit"], units["godwit-no-reuse"]
        losses.append((1 - statistics.median(ours) / statistics.median(without)) * 100)
        mean = (1 - statistics.mean(ours) / statistics.mean(without)) * 100
        result.rows.append([f"busy:{mib}", f"{statistics.median(without):.0f}",
                            f"{statistics.median(ours):.0f}", f"{losses[-1]:.1f} %",
                            f"{mean:.1f} %"])
        result.bars.append((f"busy:{mib}", losses[-1]))
    target.measured = max(losses)
    target.measured_text = f"{target.measured:.1f} % (the worse of the two)"
    result.notes.append(f"medians of units of work per guest second, in the first "
                        f"{bench.phase_seconds} s after the arrival; a fresh guest each time, with "
                        "reuse and without in turn. The mean holds the first write to each page")
    return result


ALL = {
    "reuse-loop-1gbit": reuse_loop,
    "reuse-web-1gbit": reuse_web,
    "reuse-stream-1gbit": reuse_stream,
    "reuse-shop-1gbit": reuse_shop,
    "reuse-tracking": reuse_tracking,
}
