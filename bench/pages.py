# SPDX-License-Identifier: GPL-2.0-or-later
"""The page pipeline's scenarios: fake dirty pages, compression, hashes, real servers.

All over 1 Gbit/s, where bytes are time. Who never ends is given up.
"""
import json
import subprocess

import guest
from contenders import Contender
from hosts import Failure
from measure import (Mover, by_contender, godwit_parts, godwit_stages, hold, medians, move_all,
                     move_table)
from report import Result

RATE = "1gbit"
USUAL = ("godwit", "godwit-plain", "qemu", "qemu-xbzrle")
MEMCACHED_PORT, REDIS_PORT = 11211, 6379
SET_MIB = 200               # that is written round and round
SET_RATE = 76               # MiB/s: 80 MB/s
SORT_MIB = 512
COMPRESSORS = ("none", "lz4", "zstd")


def scaled(bench, mib):
    """What belongs to 1000 MiB of random data, in a smaller guest; never more than asked."""
    return min(mib, bench.fill_mib * mib // 1000)


def filled(*others, fill_mib, ready=(), **more):
    """A load on top of random data."""
    return guest.Load(f"fill:{fill_mib}", *others, ready=[("fill: filled", 1), *ready], **more)


def fake(bench, same):
    """A set of which most writes change nothing."""
    mib = scaled(bench, SET_MIB)
    # Filled, and two reports of the rate.
    return filled(f"wset:{mib}:{SET_RATE}:90:{same}", fill_mib=bench.fill_mib,
                  ready=[("wset: ", 3)])


def moved(bench, result, movers):
    """Move them all; the table, and groups for the targets."""
    result.runs = move_all(bench, RATE, movers, bench.give_up)
    groups = by_contender(result.runs)
    move_table(result, groups)
    godwit_parts(result, groups)
    godwit_stages(result, groups)
    clients = {name: rows for name, rows in groups.items() if "client" in rows[0]}
    for name, rows in clients.items():
        m = medians([row["client"] for row in rows], "per-second", "gap-ms")
        result.notes.append(f"{name}'s client: {m['per-second']:.0f} operations/s, longest time "
                            f"without an answer {m['gap-ms']:.0f} ms")
        lost = sum(not row["survived"] for row in rows)
        if lost:
            result.notes.append(f"{name}: {lost} of {len(rows)} guests DID NOT SURVIVE the move: "
                                "their server answered no more, or wrongly")
    return groups


def under(bench, load, *usual):
    return [Mover(contender.name, contender, load) for contender in bench.contenders(*usual)]


def fake_writes(bench, name, title, same):
    result = Result(name, title)
    total = result.target("godwit's total <= 0.75 x qemu", 0.75)
    idle = result.target("godwit's bytes <= 1.03 x those of an idle guest", 1.03)
    delta = result.target("godwit's bytes <= qemu-xbzrle's", 1)
    movers = under(bench, fake(bench, same), *USUAL)
    mib = bench.fill_mib + scaled(bench, SET_MIB)
    movers += [Mover("godwit, idle", mover.contender,
                     guest.Load(f"fill:{mib}", ready=[("fill: filled", 1)], quiet=True))
               for mover in movers if mover.name == "godwit"]
    groups = moved(bench, result, movers)
    hold(total, groups, "total-ms", "godwit", "qemu")
    hold(idle, groups, "on-link", "godwit", "godwit, idle")
    hold(delta, groups, "on-link", "godwit", "qemu-xbzrle")
    return result


def fake_1gbit(bench):
    return fake_writes(bench, "fake-1gbit", "a set is written at 80 MB/s, 90 % of the writes fake", 0)


def fake_same_1gbit(bench):
    return fake_writes(bench, "fake-same-1gbit",
                       "a set is written at 80 MB/s, 90 % of its pages never change", 1)


def text_1gbit(bench):
    result = Result("text-1gbit", "idle memory full of prose, JSON and C")
    size = result.target("godwit's bytes <= qemu-multifd-zstd's", 1)
    total = result.target("godwit's total <= 0.9 x qemu-multifd-zstd", 0.9)
    load = guest.Load(f"text:{bench.fill_mib}", ready=[("text: filled", 1)], quiet=True)
    groups = moved(bench, result,
                   under(bench, load, "godwit", "godwit-plain", "qemu", "qemu-multifd-zstd"))
    hold(size, groups, "on-link", "godwit", "qemu-multifd-zstd")
    hold(total, groups, "total-ms", "godwit", "qemu-multifd-zstd")
    return result


def memcached_1gbit(bench):
    result = Result("memcached-1gbit", "memcached, asked and changed 10 to 1 as memaslap does")
    total = result.target("godwit's total <= 0.6 x qemu", 0.6)
    # Values of 1000 bytes take 1184 with what memcached puts around them.
    load = guest.Load(f"memcached:-u:root:-m:{bench.fill_mib * 4 // 3}:-t:4:-U:0",
                      client=(guest.KeyValueLoad, "memaslap", bench.fill_mib, MEMCACHED_PORT))
    groups = moved(bench, result, under(bench, load, *USUAL))
    hold(total, groups, "total-ms", "godwit", "qemu")
    return result


def ycsb_1gbit(bench):
    result = Result("ycsb-1gbit", "redis under YCSB's workload A, half of it changes")
    load = guest.Load("redis-server:--save::--protected-mode:no",
                      client=(guest.KeyValueLoad, "ycsb", bench.fill_mib, REDIS_PORT))
    moved(bench, result, under(bench, load, *USUAL))
    return result


def sort_1gbit(bench):
    result = Result("sort-1gbit", "half of the memory is sorted again and again")
    mib = scaled(bench, SORT_MIB)
    load = filled(f"quicksort:{mib}", fill_mib=bench.fill_mib - mib,
                  ready=[("quicksort: filled", 1)])
    moved(bench, result, under(bench, load, *USUAL))
    return result


def cpu_1gbit(bench):
    result = Result("cpu-1gbit", "a guest that counts primes, and writes next to nothing")
    load = filled("cpu", fill_mib=bench.fill_mib, ready=[("cpu: ", 2)])
    moved(bench, result, under(bench, load, *USUAL))
    return result


def hash_times(bench):
    """Nanoseconds per page of each hash that this build has."""
    done = subprocess.run([str(bench.setup.build / "bench/hash")], capture_output=True, text=True)
    if done.returncode:
        raise Failure(done.stderr.strip())
    return json.loads(done.stdout)


def hashes(bench):
    """The paper's comparison: which hash tells fake dirty pages best, alone and with compression."""
    result = Result("hashes", "fake dirty pages by each hash, with each compressor")
    times = hash_times(bench)
    movers = [Mover(f"{name} {compressor}",
                    Contender(bench.setup, name,
                              {"options": ["--hash", name, "--compress", compressor]}),
                    fake(bench, 0))
              for name in times for compressor in COMPRESSORS]
    groups = moved(bench, result, movers)
    result.columns.insert(1, "ns per page")
    for row in result.rows:
        row.insert(1, f"{times[row[0].split()[0]]:.0f}")
    result.notes.append("ns per page: of the hash alone, on random data that is in the caches "
                        "no more, through the product's own library")
    return result


ALL = {
    "fake-1gbit": fake_1gbit,
    "fake-same-1gbit": fake_same_1gbit,
    "text-1gbit": text_1gbit,
    "memcached-1gbit": memcached_1gbit,
    "ycsb-1gbit": ycsb_1gbit,
    "sort-1gbit": sort_1gbit,
    "cpu-1gbit": cpu_1gbit,
    "hashes": hashes,
}
