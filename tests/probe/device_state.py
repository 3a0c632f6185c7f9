#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""F5 and F6: QEMU moves the device state alone, and the memory is ours to move.

    device_state.py GUESTS

One guest, which tests its memory all the time, moves twice:

    source -> middle       RAM file filled before QEMU starts there
    middle -> destination  RAM file filled after QEMU has started there

With x-ignore-shared on both sides, QEMU's stream goes through a relay of ours
that counts its bytes. On the way: pause-before-switchover stops the guest and
migrate_cancel lets it run on; QEMU refuses its own post-copy in this mode.
"""
import hashlib
import os
import socket
import sys
import threading
import time

from guests import (BOOT_S, Qemu, check, linux, main, make_guests, need_root_and_qemu)

GUESTS, = sys.argv[1:]
STREAM_MAX = 1 << 20  # bytes; 206 to 290 KB were seen, of a guest with 256 MiB
SIZE = 256 << 20


class Relay:
    """Between two UNIX sockets, one way; counts the bytes."""

    def __init__(self, place, name, to):
        self.path = os.path.join(place.dir, name)
        self.to = to
        self.bytes = 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        stream, _ = self.listener.accept()
        with stream, socket.socket(socket.AF_UNIX) as out:
            if self.to:
                out.connect(self.to)
            while data := stream.recv(1 << 16):
                self.bytes += len(data)
                if self.to:
                    out.sendall(data)


def empty_ram(path):
    with open(path, "wb") as f:
        f.truncate(SIZE)


def fill(to, source):
    """Copy the stopped source's memory, holes as holes."""
    with open(source, "rb") as src, open(to, "r+b") as dst:
        at = 0
        while True:
            try:
                at = os.lseek(src.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(src.fileno(), at, os.SEEK_HOLE)
            while at < end:
                data = os.pread(src.fileno(), min(1 << 20, end - at), at)
                at += os.pwrite(dst.fileno(), data, at)


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "blake2b").hexdigest()


def pause_and_cancel(place, source):
    """At pre-switchover the guest is stopped; a cancellation there lets it run on."""
    relay = Relay(place, "cancelled", None)
    source.qmp.capabilities("pause-before-switchover")
    source.qmp.call("migrate", uri="unix:" + relay.path)
    source.qmp.wait_event(lambda e: e["event"] == "STOP")
    source.qmp.wait_migration("pre-switchover")
    check(source.qmp.call("query-status")["status"] != "running",
          "the guest runs at pre-switchover")
    source.qmp.call("migrate_cancel")
    source.qmp.wait_migration("cancelled")
    source.qmp.wait_event(lambda e: e["event"] == "RESUME")
    check(source.qmp.call("query-status")["status"] == "running", "the guest was not resumed")
    source.expect_memtest()
    source.qmp.call("migrate-set-capabilities",
                    capabilities=[{"capability": "pause-before-switchover", "state": False}])


def refuses_postcopy(source):
    source.qmp.capabilities("x-ignore-shared")
    answer = source.qmp.try_call("migrate-set-capabilities", capabilities=[
        {"capability": "postcopy-ram", "state": True}])
    check("error" in answer, "QEMU takes post-copy together with x-ignore-shared")


def move(place, source, source_ram, name, arguments, filled_first):
    """The guest goes on at a new QEMU called @name, which is returned."""
    ram = os.path.join(place.ram, name)
    empty_ram(ram)
    if filled_first:
        source.qmp.call("stop")
        fill(ram, source_ram)
    to = Qemu(place, name, ram, arguments, incoming=True)
    to.qmp.capabilities("x-ignore-shared", "events")
    listen = os.path.join(place.dir, name + "-incoming")
    to.qmp.call("migrate-incoming", uri="unix:" + listen)
    if not filled_first:
        check(os.stat(ram).st_blocks == 0, "QEMU wrote into the RAM file before the migration")
        source.qmp.call("stop")
        fill(ram, source_ram)
    before = digest(source_ram)
    check(digest(ram) == before, "QEMU changed the RAM file before the migration")

    relay = Relay(place, name + "-relay", listen)
    source.qmp.capabilities("x-ignore-shared", "events")
    began = time.monotonic()
    source.qmp.call("migrate", uri="unix:" + relay.path)
    source.qmp.wait_migration("completed")
    to.qmp.wait_migration("completed")
    moved = time.monotonic()
    relay.thread.join(10)
    to.qmp.call("cont")
    to.qmp.wait_event(lambda e: e["event"] == "RESUME")
    resumed = time.monotonic()
    print(f'{name}: RAM file filled {"before" if filled_first else "after"} QEMU started: '
          f"{relay.bytes} bytes of device state in {(moved - began) * 1e3:.1f} ms, "
          f"then cont in {(resumed - moved) * 1e3:.1f} ms")
    check(0 < relay.bytes < STREAM_MAX, f"QEMU sent {relay.bytes} bytes: memory, too")
    check(digest(source_ram) == before, "the stopped source changed its memory")
    to.expect_memtest(3)
    source.kill()
    return to, ram


def test(place):
    make_guests(GUESTS)
    arguments = linux(GUESTS, "memtest:64")
    ram = os.path.join(place.ram, "source")
    source = Qemu(place, "source", ram, arguments)
    source.console.wait(rb"memtest: pass 1 ok", seconds=BOOT_S)
    source.qmp.capabilities("events")
    refuses_postcopy(source)
    pause_and_cancel(place, source)
    middle, ram = move(place, source, ram, "middle", arguments, True)
    move(place, middle, ram, "destination", arguments, False)


need_root_and_qemu()
main(test)
