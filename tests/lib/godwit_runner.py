# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs end-to-end tests.

A module has groups, classes below Group; their test_* methods run in order in
one process with a lab (hosts, guests) that setup() makes once, so that tests
share booted guests. After each test the lab is checked: guests work on, nothing
is left behind. A test that fails costs the next one of its group a new lab.
Groups run side by side, each in a network namespace of its own.
"""

import argparse
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import godwit_lab
from godwit_lab import Lab, Skip


class Group:
    """Tests that share a lab."""

    timeout = 60  # seconds for one test, and for setup
    weight = 10   # seconds for all, roughly: heavy groups begin first
    soak = False  # takes minutes: only with --soak
    mkguest = (godwit_lab.GUEST,)  # what lab/mkguest makes for it before
    grace = 5     # seconds after a test in which what it left may go by itself

    def __init__(self):
        self.lab = None

    def setup(self):
        """Make what the tests share, in self.lab."""


class TimedOut(Exception):
    """A test took too long."""


def on_alarm(_number, _frame):
    raise TimedOut()


def tests_of(group):
    """Names of a group's tests, in the order of the file."""
    return [name for name in vars(group) if name.startswith("test_")]


class GroupProcess:
    """In the child: runs the chosen tests of one group and reports on a pipe."""

    def __init__(self, group, names, folder, keep, report):
        self.group, self.names, self.folder = group, names, folder
        self.keep, self.report = keep, report
        self.instance = None

    def run(self):
        signal.signal(signal.SIGALRM, on_alarm)
        godwit_lab.namespace_new()
        for name in self.names:
            self._run_test(name)
        if self.instance:
            self._timed("the end", self._finish)

    def _say(self, name, result, seconds, detail=""):
        self.report.write(json.dumps([name, result, seconds, detail]) + "\n")
        self.report.flush()

    def _setup(self):
        if self.instance:
            return
        os.makedirs(self.folder, exist_ok=True)
        self.instance = self.group()
        self.instance.lab = Lab(self.folder)
        self.instance.setup()

    def _body(self, name):
        self._setup()
        getattr(self.instance, name)()
        self.instance.lab.close()
        self.instance.lab.check(self.instance.grace)

    def _finish(self):
        self.instance.lab.finish()

    def _run_test(self, name):
        self._timed(name, lambda: self._body(name))

    def _timed(self, name, body):
        began = time.monotonic()
        result, detail = "ok", ""
        limit = self.group.timeout * godwit_lab.PATIENCE
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            body()
        except Skip as e:
            result, detail = "skip", str(e)
            if not e.kvm and os.environ.get("CI") == "true":
                result = "fail"
        except TimedOut:
            result = "fail"
            detail = f"took longer than {limit:.0f} s\n{traceback.format_exc()}"
        except Exception:  # pylint: disable=broad-except
            result, detail = "fail", traceback.format_exc()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if result == "fail":
            where = os.path.join(self.keep, f"{self.group.__name__}.{name.replace(' ', '-')}")
            detail += f"logs are kept in {where}\n"
            self._destroy(where)
        if result == "skip" and self.instance:
            self.instance.lab.close()
        if name.startswith("test_") or result == "fail":
            self._say(name, result, time.monotonic() - began, detail)

    def _destroy(self, where):
        if not self.instance:
            return
        try:
            self.instance.lab.destroy(where)
        except Exception:  # pylint: disable=broad-except
            traceback.print_exc()
        self.instance = None


class Runner:
    """The parent: starts groups, prints what they report."""

    def __init__(self, jobs):
        self.jobs = jobs
        self.counts = {"ok": 0, "fail": 0, "skip": 0}
        self.folder = tempfile.mkdtemp(prefix="gwt-")
        self.keep = os.environ.get("GODWIT_LOGS", self.folder + "-failed")
        self.running = []

    def run(self, groups):
        waiting = sorted(groups, key=lambda g: -g[0].weight)
        number = 0
        while waiting or self.running:
            while waiting and len(self.running) < self.jobs:
                group, names = waiting.pop(0)
                number += 1
                self._start(group, names, os.path.join(self.folder, str(number)))
            self._collect()

    def _start(self, group, names, folder):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(read)
                with os.fdopen(write, "w") as report:
                    GroupProcess(group, names, folder, self.keep, report).run()
                status = 0
            except BaseException:  # pylint: disable=broad-except
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        os.close(write)
        os.set_blocking(read, False)
        self.running.append({"group": group, "names": list(names), "pid": pid, "pipe": read,
                             "text": "", "folder": folder, "heard": time.monotonic()})

    def _collect(self):
        for child in list(self.running):
            ended = os.waitpid(child["pid"], os.WNOHANG)[0]
            self._hear(child)
            silence = time.monotonic() - child["heard"]
            if not ended and silence > child["group"].timeout * godwit_lab.PATIENCE + 60:
                os.kill(child["pid"], signal.SIGKILL)
                os.waitpid(child["pid"], 0)
                ended = True
            if ended:
                self._hear(child)
                self._ended(child)
        time.sleep(0.02)

    def _hear(self, child):
        try:
            data = os.read(child["pipe"], 1 << 20)
        except BlockingIOError:
            return
        if not data:
            return
        child["heard"] = time.monotonic()
        child["text"] += data.decode()
        while "\n" in child["text"]:
            line, _, child["text"] = child["text"].partition("\n")
            name, result, seconds, detail = json.loads(line)
            if name in child["names"]:
                child["names"].remove(name)
            self._print(child["group"], name, result, seconds, detail)

    def _print(self, group, name, result, seconds, detail):
        self.counts[result] += 1
        title = f"{group.__module__}.{group.__name__}.{name}"
        line = f"{result:4} {seconds:6.1f} s  {title}"
        if result == "skip":
            line += f": {detail}"
        print(line, flush=True)
        if result == "fail":
            print("".join(f"     | {text}\n" for text in detail.splitlines()), flush=True)

    def _ended(self, child):
        self.running.remove(child)
        os.close(child["pipe"])
        for name in child["names"]:
            self._print(child["group"], name, "fail", 0, "its process ended before it")
        if os.path.isdir(child["folder"]):
            # Only after a crash of the group's process: nothing of it may stay.
            godwit_lab.clear_away(child["folder"], child["pid"],
                                  os.path.join(self.keep, child["group"].__name__))

    def end(self):
        """After an interruption: end what still runs."""
        for child in list(self.running):
            os.kill(child["pid"], signal.SIGKILL)
            os.waitpid(child["pid"], 0)
            child["names"] = []
            self._ended(child)
        shutil.rmtree(self.folder, ignore_errors=True)


def collect(modules, pattern, soak=False):
    """(group, names of its tests that match) for each group that has any; @soak: the long ones."""
    chosen = []
    for module in modules:
        for _, group in sorted(inspect.getmembers(module, inspect.isclass),
                               key=lambda item: inspect.getsourcelines(item[1])[1]
                               if item[1].__module__ == module.__name__ else 0):
            if not issubclass(group, Group) or group.__module__ != module.__name__ \
                    or (group.soak and not soak):
                continue
            names = [name for name in tests_of(group)
                     if pattern in f"{module.__name__}.{group.__name__}.{name}"]
            if names:
                chosen.append((group, names))
    return chosen


def main(modules):
    parser = argparse.ArgumentParser(description="End-to-end tests of Godwit: real QEMU, real "
                                     "guests, real faults. Needs root.")
    parser.add_argument("-k", dest="pattern", default="", metavar="TEXT",
                        help="only tests whose name has TEXT in it")
    parser.add_argument("--list", action="store_true", help="name the tests, and run none")
    parser.add_argument("--jobs", type=int, default=2, help="groups at a time (2)")
    parser.add_argument("--soak", action="store_true", help="those that take minutes, too")
    parser.add_argument("--repeat", type=int, default=1, metavar="N",
                        help="run everything N times, or until a test fails")
    args = parser.parse_args()
    groups = collect(modules, args.pattern, args.soak)
    if args.list:
        for group, names in groups:
            for name in names:
                print(f"{group.__module__}.{group.__name__}.{name}")
        return 0
    if os.geteuid():
        print("end-to-end tests must be run as root", file=sys.stderr)
        return 1
    for path in (godwit_lab.GODWIT, godwit_lab.GODWITD):
        if not os.path.exists(path):
            print(f"{path} is not there; build it, or name the build folder in GODWIT_BUILD",
                  file=sys.stderr)
            return 1
    # Now, while there is a network: the tests have one of their own.
    for words in dict.fromkeys((Group.mkguest, *(group.mkguest for group, _ in groups))):
        os.makedirs(words[-1], exist_ok=True)
        subprocess.run([os.path.join(godwit_lab.REPO, "lab", "mkguest"), *words], check=True,
                       stdout=subprocess.DEVNULL)
    runner = Runner(args.jobs)
    try:
        for _ in range(args.repeat):
            runner.run(groups)
            if runner.counts["fail"]:
                break
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        runner.counts["fail"] += 1
    finally:
        runner.end()
    print("{ok} passed, {fail} failed, {skip} skipped".format(**runner.counts))
    return 1 if runner.counts["fail"] or not sum(runner.counts.values()) else 0
