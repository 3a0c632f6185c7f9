# SPDX-License-Identifier: GPL-2.0-or-later
"""Post-copy's scenario: a guest that no number of rounds would move, over 1 Gbit/s."""
import guest
from measure import Mover, hold
from pages import filled, moved, scaled, under
from report import Result

SET_MIB = 100
SET_RATE = 153              # MiB/s: 160 MB/s


def rewrite_1gbit(bench):
    result = Result("rewrite-1gbit", "a set is rewritten at 160 MB/s, faster than the link")
    total = result.target("godwit-auto's total <= 1.15 x an idle guest's", 1.15)
    mib = scaled(bench, SET_MIB)
    load = filled(f"wset:{mib}:{SET_RATE}:0", fill_mib=bench.fill_mib, ready=[("wset: ", 3)])
    idle = guest.Load(f"fill:{bench.fill_mib + mib}", ready=[("fill: filled", 1)], quiet=True)
    movers = under(bench, load, "godwit", "godwit-auto", "godwit-now", "qemu-postcopy")
    movers += [Mover("godwit, idle", mover.contender, idle)
               for mover in movers if mover.name == "godwit"]
    groups = moved(bench, result, movers)
    hold(total, groups, "total-ms", "godwit-auto", "godwit, idle")
    return result


ALL = {"rewrite-1gbit": rewrite_1gbit}
