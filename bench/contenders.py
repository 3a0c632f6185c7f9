# SPDX-License-Identifier: GPL-2.0-or-later
"""Who moves the guest: Godwit, and QEMU's own migration in several ways.

A contender is used as often as there are repetitions, each time so:

    with contender.start(load) as vm:    # a fresh guest on host a
        vm.pid, vm.console, vm.host      # of where it is now
        vm.move(give_up)                 # to the other host; a result
        vm.move(meanwhile=act)           # of Godwit's: act(client) is called once it is asked for
    vm.move(meanwhile=act)           # Godwit's alone: act(client) once it is asked for

A result has the same keys for all:

    asked-at      when the move was asked for, seconds of the wall clock
    resumed-at    when the guest ran at the destination
    total-ms      from the moment when the move is asked for, as the client
                  sees it, to the RESUME event of the destination's QEMU, by
                  the time in that event. For Godwit it holds the start of the
                  destination's QEMU, which Godwit does; for QEMU it does not.
                  With post-copy it lasts until all memory has arrived.
    start-ms      what the destination's QEMU took to start (QEMU only)
    transferred   bytes, as the contender counts them
    downtime-ms   as the contender counts it
    detail        its whole own account
    ended         false if it would not end: with give_up, a move that takes so
                  many seconds is stopped, and total and transferred are what
                  it had come to; without, that is a Failure

To add a contender, add a row to the table at the end.
"""
import contextlib
import json
import shutil
import subprocess
import time

import guest
from hosts import ADDRESS, MIB, Failure, Late, end, spawn, wait_until

VM = "bench"
OTHER = {"a": "b", "b": "a"}
MIGRATION_PORT = 4444
UNLIMITED = 10 ** 13
MOVE_SECONDS = 300
NO_END = "writes memory faster than it can be moved"  # Godwit's own reason to give up


class Setup:
    """What all contenders share: the hosts and the guest to be moved."""

    def __init__(self, build, network, daemons, folder, qemu, images, memory,
                 memory_mib, streams):
        self.build = build
        self.network = network
        self.daemons = daemons
        self.folder = folder
        self.qemu = qemu
        self.images = images
        self.memory = memory
        self.memory_mib = memory_mib
        self.streams = streams


def gave_up(asked, start_ms, detail):
    """The result of a move that would not end."""
    return {"ended": False, "asked-at": asked, "resumed-at": None, "total-ms": (time.time() - asked) * 1e3,
            "start-ms": start_ms, "transferred": detail["ram"]["transferred"],
            "downtime-ms": None, "detail": detail}


class GodwitVm:
    def __init__(self, setup, load, kind):
        self.setup = setup
        self.options = kind["options"]
        self.host = "a"
        self.daemon.call("run", VM, "--memory", f"{setup.memory_mib}M", *load.port, "--",
                         *guest.command_line(setup.qemu, setup.images, load, "{dir}"))
        self._settle()

    @property
    def daemon(self):
        """Of the host where it is."""
        return self.setup.daemons[self.host]

    @property
    def destination(self):
        return self.setup.daemons[OTHER[self.host]]

    def _settle(self):
        self.pid = self.daemon.call("list", "--json")[0]["pid"]
        self.monitor = self.daemon.directory(VM) / "bench.qmp"
        self.console = guest.Console(self.daemon.directory(VM) / "serial.log")

    def plan(self):
        """What `godwit plan` predicts of a move to the other host."""
        ranked = self.daemon.call("plan", VM, "--json")["hosts"]
        found = [host for host in ranked if host["host"] == OTHER[self.host]]
        if not found:
            raise Failure(f"godwit plan does not know host {OTHER[self.host]}: {ranked}")
        return found[0]

    def begin(self, *options):
        """Begin to move it to the other host; the process that does."""
        return spawn(self.daemon.command("migrate", VM, self.destination.address, "--json",
                                         "--streams", self.setup.streams, *self.options, *options),
                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def move(self, give_up=None, meanwhile=None):
        asked = time.time()
        client = self.begin()
        try:
            if meanwhile:
                meanwhile(client)
            resumed = self._wait_resumed(client, give_up or MOVE_SECONDS)
            output, errors = client.communicate(timeout=MOVE_SECONDS)
            ended = time.time()
        except Late:
            if not give_up:
                raise
            detail = self.daemon.call("status", VM, "--json")
            self.daemon.call("cancel", VM)
            client.communicate(timeout=60)
            return gave_up(asked, None, detail)
        finally:
            end(client)
        if client.returncode:
            if give_up and NO_END in errors:
                return gave_up(asked, None, json.loads(output))
            raise Failure(errors.strip())
        self.host = OTHER[self.host]
        self._settle()
        detail = json.loads(output)
        # In post-copy it has moved when all of its memory has.
        moved = resumed if detail["godwit"]["mode"] in ("precopy", "split") else ended
        return {"ended": True, "asked-at": asked, "resumed-at": resumed, "total-ms": (moved - asked) * 1e3,
                "start-ms": None, "transferred": detail["ram"]["transferred"],
                "downtime-ms": detail["downtime"], "detail": detail}

    def _wait_resumed(self, client, seconds):
        """When the guest ran on the other host; None if the move failed, and the client says why."""
        deadline = time.monotonic() + seconds
        path = self.destination.directory(VM) / "bench.qmp"
        wait_until(lambda: path.exists() or client.poll() is not None, 60, str(path))
        if client.poll() and not path.exists():  # refused, before there was a QEMU
            return None
        try:
            with contextlib.closing(guest.Qmp(path)) as monitor:
                return monitor.wait_event(guest.is_resume, deadline - time.monotonic())
        except Late:
            raise
        except Failure:  # the monitor goes away before the client does
            wait_until(lambda: client.poll() is not None, 30, "the end of a failed migration")
            if not client.returncode:
                raise
            return None

    def close(self):
        for daemon in self.setup.daemons.values():
            daemon.stop_all()


class Qemu:
    """One QEMU with its ordinary memory, on one host."""

    def __init__(self, setup, host, load, *more):
        self.host = host
        folder = setup.folder / f"qemu-{host}"
        folder.mkdir()
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder)
            log = stack.enter_context(open(folder / "qemu.log", "w"))
            argv = guest.command_line(setup.qemu, setup.images, load, folder)
            self.process = spawn(setup.network.enter(host) +
                                 argv + ["-m", f"{setup.memory_mib}M", *more],
                                 stdout=log, stderr=log)
            stack.callback(end, self.process)
            try:
                self.qmp = guest.Qmp(folder / "bench.qmp")
            except Failure as error:
                raise Failure(f"{error}; {(folder / 'qemu.log').read_text().strip()}") from None
            stack.callback(self.qmp.close)
            self.close = stack.pop_all().close
        self.console = guest.Console(folder / "serial.log")


class QemuVm:
    """A guest that QEMU moves."""

    def __init__(self, setup, load, kind):
        self.setup = setup
        self.load = load
        self.kind = kind
        self.postcopy = "postcopy-ram" in kind.get("capabilities", ())
        self.other = None       # where it was before, or did not come to
        self._settle(Qemu(setup, "a", load))

    def _settle(self, here):
        self.here = here
        self.host = here.host
        self.pid = here.process.pid
        self.console = here.console

    def _prepare(self, qmp):
        names = ["events", *self.kind.get("capabilities", ())]
        qmp.call("migrate-set-capabilities",
                 capabilities=[{"capability": name, "state": True} for name in names])
        qmp.call("migrate-set-parameters", **{"max-bandwidth": UNLIMITED, "downtime-limit": 300},
                 **self.kind.get("parameters", {}))

    def move(self, give_up=None):
        if self.other:
            self.other.close()
            self.other = None
        host, here = OTHER[self.host], self.here.qmp
        began = time.monotonic()
        self.other = Qemu(self.setup, host, self.load, "-incoming", "defer")
        there = self.other.qmp
        self._prepare(there)
        there.call("migrate-incoming", uri=f"tcp:{ADDRESS[host]}:{MIGRATION_PORT}")
        start_ms = (time.monotonic() - began) * 1e3
        self._prepare(here)
        asked = time.time()
        here.call("migrate", uri=f"tcp:{ADDRESS[host]}:{MIGRATION_PORT}")
        try:
            if self.postcopy:
                self._start_postcopy(here, give_up or MOVE_SECONDS, self.kind.get("at-once"))
            resumed = there.wait_event(guest.is_resume, give_up or MOVE_SECONDS)
            ended = here.wait_event(guest.is_migration_end, give_up or MOVE_SECONDS)
        except Late:
            if not give_up:
                raise
            resumed = None
        finally:
            detail = here.call("query-migrate")
            if detail["status"] != "completed":
                here.call("migrate_cancel")
        if resumed is None:
            return gave_up(asked, start_ms, detail)
        if detail["status"] != "completed":
            raise Failure(f"QEMU's migration: {detail}")
        left = self.here
        self._settle(self.other)
        self.other = left
        moved = ended if self.postcopy else resumed
        return {"ended": True, "asked-at": asked, "resumed-at": resumed, "total-ms": (moved - asked) * 1e3,
                "start-ms": start_ms, "transferred": detail["ram"]["transferred"],
                "downtime-ms": detail["downtime"], "detail": detail}

    @staticmethod
    def _start_postcopy(here, seconds, at_once):
        """At once, or after the first pass, as operators do."""
        def is_time():
            state = here.call("query-migrate")
            if state["status"] == "setup":
                return None
            return (at_once or state["status"] != "active" or
                    state["ram"]["dirty-sync-count"] > 1) and state
        if wait_until(is_time, seconds, "the first pass")["status"] == "active":
            here.call("migrate-start-postcopy")

    def close(self):
        with contextlib.ExitStack() as stack:
            stack.callback(self.here.close)
            if self.other:
                stack.callback(self.other.close)


class Contender:
    def __init__(self, setup, name, kind):
        self.setup = setup
        self.name = name
        self.kind = kind

    @contextlib.contextmanager
    def start(self, load):
        make = GodwitVm if "options" in self.kind else QemuVm
        with contextlib.closing(make(self.setup, load, self.kind)) as vm:
            yield vm


# Name: for Godwit the options of `godwit migrate`, for QEMU what it is to use.
KINDS = {
    "godwit": {"options": []},
    # Only zero pages are told from others: what each stage is worth shows against this.
    "godwit-plain": {
        "options": ["--compress", "none", "--no-fake-dirty", "--no-duplicate",
                    "--delta-cache", "0"],
    },
    # As if the VM had never been at its destination.
    "godwit-no-reuse": {"options": ["--no-reuse"]},
    # The guest goes before its memory, after as many rounds as it takes or without any.
    "godwit-auto": {"options": ["--postcopy", "auto"]},
    "godwit-now": {"options": ["--postcopy", "now"]},
    "godwit-now-off": {"options": ["--postcopy", "now", "--working-set", "off"]},
    "godwit-lz4": {"options": ["--compress", "lz4"]},
    "godwit-zstd": {"options": ["--compress", "zstd"]},
    "qemu": {},
    "qemu-multifd": {
        "capabilities": ["multifd"],
        "parameters": {"multifd-channels": 2},
    },
    "qemu-xbzrle": {
        "capabilities": ["xbzrle"],
        "parameters": {"xbzrle-cache-size": 512 * MIB},
    },
    "qemu-multifd-zstd": {
        "capabilities": ["multifd"],
        "parameters": {"multifd-channels": 2, "multifd-compression": "zstd"},
    },
    "qemu-postcopy": {
        "capabilities": ["postcopy-ram"],
    },
    "qemu-preempt": {
        "capabilities": ["postcopy-ram", "postcopy-preempt"],
    },
    "qemu-postcopy-now": {
        "capabilities": ["postcopy-ram"],
        "at-once": True,
    },
    "qemu-preempt-now": {
        "capabilities": ["postcopy-ram", "postcopy-preempt"],
        "at-once": True,
    },
}
