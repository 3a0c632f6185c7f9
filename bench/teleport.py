# SPDX-License-Identifier: GPL-2.0-or-later
"""Page cache that is read from the destination's disk instead of the network (Akiyama et al.).

The paper's two loads, a static web site and transactions on a database, moved over a slow link: by each way
to know what disks hold, without any, with the guest's caches dropped first, and by QEMU.
"""
import statistics
import time

import guest
import reuse
from contenders import KINDS, Contender
from hosts import MIB, Failure
from measure import by_contender, ended, medians, move_once, ratio, say_run, survived
from pages import filled, scaled
from postcopy import answers_around
from report import Result

WEB_MIB = 300               # the paper's
SHOP_WAREHOUSES = 4         # 200 MiB: the paper's 1.9 GB, and its guest of 1 GiB, by five and a half
BEFORE, AFTER = 10, 30      # seconds of answers that are shown
BACK_SECONDS = 3            # after which they are what they were (the paper's)
PAGE = 4096
# Name: options of the move, how the guest tells, whether its caches are dropped before.
WAYS = {"off": ((), None, False), "module": (("--teleport=agent",), "module", False),
        "agent": (("--teleport=agent",), "agent", False), "index": (("--teleport=index",), None, False),
        "dropped": ((), None, True)}


def back_after(points, usual):
    """Seconds after the resume until a second's answers are nine tenths of the usual again; None: never."""
    at = [(t, rate) for t, rate in points if t >= 0]
    for i, (t, _) in enumerate(at):
        second = [rate for when, rate in at[i:] if when < t + 1]
        if second and statistics.mean(second) >= 0.9 * usual:
            return t
    return None


def move_by(bench, name, options, dropped, load, give_up):
    """One guest: its answers before, its move, its answers after."""
    kind = KINDS["qemu"] if name == "qemu" else {"options": ["--no-reuse", *options]}
    with bench.guest(Contender(bench.setup, "qemu" if name == "qemu" else "godwit", kind), load) as (vm, client):
        time.sleep(BEFORE)
        if dropped:
            guest.shell(bench.setup.network, "echo 3 >/proc/sys/vm/drop_caches")
        run = move_once(bench, vm, give_up)
        time.sleep(AFTER)
        if client:
            run["client"] = client.finish()
            run["survived"] = survived(run["client"])
            points = answers_around(run)
            asked = run["asked-at"] - (run["resumed-at"] or run["asked-at"])
            usual = statistics.median([rate for at, rate in points if at < asked] or [0])
            run.update(points=points, usual=usual, back=back_after(points, usual))
    return run


def compare(bench, name, title, rate, make, cached_mib):
    result = Result(name, title)
    left = result.target("module: page cache that travels although a disk has it <= 1 %", 0.01)
    faster = result.target("module's total <= 0.45 x off's", 0.45) if rate == "100mbit" and cached_mib else None
    back = result.target(f"module: answers as before within {BACK_SECONDS} s", BACK_SECONDS)
    bench.setup.network.up(rate)
    for repetition in range(1, bench.repetitions + 1):
        for way, (options, agent, dropped) in [*WAYS.items(), ("qemu", ((), None, False))]:
            with make(agent) as load:
                run = move_by(bench, way, options, dropped, load, 4 * bench.give_up)
            run.update(contender=way, repetition=repetition)
            result.runs.append(run)
            say_run(bench, repetition, way, run)
            if way != "qemu" and not run.get("survived", True):
                raise Failure(f"{way}: the guest's server did not survive")
    groups = by_contender(result.runs)
    result.columns = ["", "total s", "of off's", "on link MiB", "teleported", "refused", "cache left",
                      "downtime ms", "back after s"]
    for way, rows in groups.items():
        m = medians(rows, "total-ms", "on-link", "downtime-ms")
        took = [row["detail"]["godwit"]["pages"]["teleported"] for row in rows if "godwit" in row["detail"]]
        lacked = [row["detail"]["godwit"].get("teleport", {}).get("refused", 0) for row in rows
                  if "godwit" in row["detail"]]
        there = statistics.median(t - l for t, l in zip(took, lacked)) if took else 0
        share = max(0, 1 - there * PAGE / (cached_mib * MIB)) if cached_mib and took else None
        times = [row.get("back") for row in rows]
        known = statistics.median(times) if all(t is not None for t in times) else None
        result.rows.append([way, f"{'' if ended(rows) else '> '}{m['total-ms'] / 1e3:.2f}",
                            ratio(groups, "total-ms", way, "off")[1], f"{m['on-link'] / MIB:.0f}",
                            f"{statistics.median(took):.0f}" if took else "-",
                            f"{statistics.median(lacked):.0f}" if lacked else "-",
                            "-" if share is None else f"{share * 100:.1f} %",
                            "-" if m["downtime-ms"] is None else f"{m['downtime-ms']:.0f}",
                            "-" if known is None else f"{known:.1f}"])
        if rows[0].get("points"):
            result.series.append((way, rows[0]["points"]))
        if way == "module":
            if share is not None:
                left.measured, left.measured_text = share, f"{share * 100:.2f} %"
            if known is not None:
                back.measured, back.measured_text = known, f"{known:.1f} s"
    if faster:
        faster.measured, faster.measured_text = ratio(groups, "total-ms", "module", "off")
    result.unit = "answers per second"
    result.notes.append("'cache left': of the files that were read, by how many pages were not read there. "
                        "The image is the same file for both hosts. The plot has the first repetition")
    return result


def web(bench, rate):
    mib = scaled(bench, WEB_MIB)
    files = mib * 1024 // reuse.WEB_KIB
    with reuse.web_disk(bench, files) as path:
        return compare(bench, f"teleport-web-{rate}", f"a static web site of {mib} MiB, link {rate}", rate,
                       lambda agent: reuse.always(filled(
                           "httpd:-f:-p:80:-h:/disk", fill_mib=max(bench.fill_mib - mib, 64), disk=path, agent=agent,
                           client=(guest.WebLoad, files, reuse.WEB_KIB)))(), mib)


def shop(bench, rate):
    def load(agent):
        return reuse.shop_load(bench, agent=agent, warehouses=SHOP_WAREHOUSES)
    return compare(bench, f"teleport-shop-{rate}", f"transactions on a database, link {rate}", rate, load, None)


ALL = {f"teleport-{name}-{rate}": (lambda bench, make=make, rate=rate: make(bench, rate))
       for name, make in (("web", web), ("shop", shop)) for rate in ("100mbit", "1gbit")}
