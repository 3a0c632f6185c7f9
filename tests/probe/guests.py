# SPDX-License-Identifier: GPL-2.0-or-later
"""Real QEMUs with the lab's guests, for the probes that need more than a process.

Rules: every wait is for a condition and has a deadline; a QEMU dies with the
test; RAM files lie in /dev/shm, in a folder that is removed with the test.
A test ends by returning (good), an exception (bad) or skip().
"""
import contextlib
import ctypes
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

SKIP = 77  # meson's "skipped"
LAB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "lab")
QEMU = "qemu-system-x86_64"
# What libvirt gives its QEMUs: Godwit's injected calls must pass this, too.
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
BOOT_S = 600  # seconds; 3 on an idle machine
PR_SET_PDEATHSIG = 1
KVM_GET_API_VERSION = 0xAE00


class Failure(Exception):
    """What was found is not what must be."""


def skip(reason):
    print("skipped:", reason)
    sys.exit(SKIP)


def check(good, complaint):
    if not good:
        raise Failure(complaint)


def need_root_and_qemu():
    if os.geteuid() != 0:
        skip("needs root")
    if not shutil.which(QEMU):
        skip(f"needs {QEMU}")


def need_kvm():
    try:
        with open("/dev/kvm", "r+b", buffering=0) as kvm:
            fcntl.ioctl(kvm, KVM_GET_API_VERSION)
    except OSError as e:
        skip(f"no KVM here (/dev/kvm: {e.strerror})")


def make_guests(outdir):
    """The lab's guests, made once for all tests of a build (mkguest locks)."""
    made = subprocess.run([os.path.join(LAB, "mkguest"), outdir], capture_output=True, text=True)
    check(made.returncode == 0, f"lab/mkguest: {made.stderr[-500:]}")
    return outdir


def linux(guests, *runs, initrd=None, memory="256M"):
    """Arguments of QEMU for the Linux guest that runs these workloads."""
    append = open(os.path.join(guests, "append")).read().strip()
    return ["-m", memory, "-machine", "q35", "-accel", "tcg",
            "-kernel", os.path.join(guests, "vmlinuz"),
            "-initrd", initrd or os.path.join(guests, "initrd.img"),
            "-append", " ".join([append] + [f"gw.run={run}" for run in runs])]


def boot_sector(guests):
    """Arguments of QEMU for the boot-sector guest, which dirties 16 MiB under KVM."""
    return ["-m", "64M", "-machine", "pc", "-accel", "kvm", "-drive",
            f"file={guests}/kvm.img,format=raw,if=ide,snapshot=on"]


class Console:
    """What a guest prints; kept whole, in memory."""

    def __init__(self, stream):
        self.data = b""
        self.ended = False
        self.news = threading.Condition()
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream):
        while more := os.read(stream.fileno(), 65536):
            with self.news:
                self.data += more
                self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()

    def wait(self, pattern, start=0, seconds=600):
        """The end of the first match of @pattern at or after offset @start."""
        deadline = time.monotonic() + seconds
        with self.news:
            while not (found := re.compile(pattern).search(self.data, start)):
                left = deadline - time.monotonic()
                if self.ended or left <= 0:
                    why = "ended" if self.ended else f"{seconds} s passed"
                    raise Failure(f"{why} without {pattern!r} on the console:\n"
                                  + self.data[-1500:].decode(errors="replace"))
                self.news.wait(left)
            return found.end()

    def text(self):
        with self.news:
            return self.data.decode(errors="replace")

    def end(self):
        with self.news:
            return len(self.data)


class Qmp:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(600)
        self.sock.connect(path)
        self.file = self.sock.makefile("rw")
        self.events = []
        json.loads(self.file.readline())
        self.call("qmp_capabilities")

    def _next(self):
        line = self.file.readline()
        check(line, "QEMU closed its monitor")
        return json.loads(line)

    def try_call(self, command, **arguments):
        """The whole answer: {'return': ...} or {'error': ...}."""
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while "event" in (answer := self._next()):
            self.events.append(answer)
        return answer

    def call(self, command, **arguments):
        answer = self.try_call(command, **arguments)
        check("return" in answer, f'{command}: {answer.get("error", {}).get("desc")}')
        return answer["return"]

    def wait_event(self, wanted):
        """Wait for an event that @wanted(event) accepts; the others stay for later calls."""
        seen = 0
        while True:
            for i in range(seen, len(self.events)):
                if wanted(self.events[i]):
                    return self.events.pop(i)
            seen = len(self.events)
            self.events.append(self._next())

    def wait_migration(self, status):
        def wanted(event):
            if event["event"] != "MIGRATION":
                return False
            now = event["data"]["status"]
            check(now == status or now not in ("failed", "cancelled"),
                  f"migration: {now} instead of {status}")
            return now == status
        return self.wait_event(wanted)

    def capabilities(self, *names):
        self.call("migrate-set-capabilities",
                  capabilities=[{"capability": n, "state": True} for n in names])


def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _listener(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(4)
    return sock


class Qemu:
    """A QEMU with its memory in the file @ram.

    .console, .qmp, and at .tool_qmp the path of another monitor, for our programs.
    """

    def __init__(self, place, name, ram, arguments, incoming=False):
        size = arguments[arguments.index("-m") + 1]
        self.tool_qmp = os.path.join(place.dir, name + "-tool.sock")
        path = os.path.join(place.dir, name + ".sock")
        # Listening before QEMU runs: nobody waits for a socket to appear.
        with _listener(path) as own, _listener(self.tool_qmp) as tool:
            argv = [QEMU, "-machine", "memory-backend=ram", "-object",
                    f"memory-backend-file,id=ram,size={size},share=on,mem-path={ram}",
                    "-display", "none", "-nodefaults", "-no-reboot", "-sandbox", SANDBOX,
                    "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
            for i, sock in enumerate((own, tool)):
                argv += ["-chardev", f"socket,id=qmp{i},fd={sock.fileno()},server=on,wait=off",
                         "-mon", f"chardev=qmp{i},mode=control"]
            argv += (["-incoming", "defer"] if incoming else []) + arguments
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                            pass_fds=(own.fileno(), tool.fileno()),
                                            preexec_fn=_die_with_parent)
        place.callback(self.kill)
        self.console = Console(self.process.stdout)
        self.qmp = Qmp(path)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def expect_memtest(self, passes=2, start=None):
        """The guest's memory test passes so many times more, and never found a bad page."""
        at = self.console.end() if start is None else start
        for _ in range(passes):
            # The first pass may have been under way before what is tested.
            at = self.console.wait(rb"memtest: (pass \d+ ok|BAD.*)\n", at)
        bad = re.findall(r"^.*BAD.*$", self.console.text(), re.M)
        check(not bad, "the guest lost memory:\n" + "\n".join(bad[:9]))


class Place(contextlib.ExitStack):
    """Folders for one test: .dir for sockets and logs, .ram in /dev/shm for RAM files."""

    def __init__(self):
        super().__init__()
        self.dir = tempfile.mkdtemp(prefix="godwit-probe-")
        self.callback(shutil.rmtree, self.dir, ignore_errors=True)
        self.ram = tempfile.mkdtemp(prefix="godwit-probe-", dir="/dev/shm")
        self.callback(shutil.rmtree, self.ram, ignore_errors=True)


def tool(*argv, seconds=300):
    """Run one of our programs; it fails, the test fails."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=seconds, preexec_fn=_die_with_parent)
    print(done.stdout, end="")
    check(done.returncode == 0, f"{os.path.basename(argv[0])} failed")
    return done.stdout


def main(test):
    """Run @test(place) and tell meson."""
    # So that a time-out of meson's (SIGTERM) cleans up, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    sys.stdout.reconfigure(line_buffering=True)
    with Place() as place:
        try:
            test(place)
        except Failure as e:
            sys.exit(f"FAILED: {e}")
