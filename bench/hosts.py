# SPDX-License-Identifier: GPL-2.0-or-later
"""The two hosts of a measurement: processes, namespaces, godwitd, warm memory.

Every process is ended by who started it, by its own number, and dies with
this one if this one is killed. A QEMU that godwitd has started belongs to
init; Daemon.close() ends those through godwitd, and by number what is left.
"""
import contextlib
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

MIB = 1 << 20
GIB = 1 << 30
ADDRESS = {"a": "192.168.77.1", "b": "192.168.77.2"}
GUEST_ADDRESS = "10.77.0.2"
PEER_PORT = 7001
LINK_PORT = 5001
FILL_PASSES = 5
SLOW = 1.2e-3           # seconds per MiB; memory that is there takes a quarter of that

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """Something could not be measured; the text says why."""


class Late(Failure):
    """Something was waited for in vain."""


def wait_until(condition, seconds, what, pause=0.02):
    """Call condition() until it returns something true, and return that."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise Late(f"{what}: not within {seconds} s")
        time.sleep(pause)


def spawn(argv, **options):
    """Start a process in a session of its own (Ctrl-C is for us alone)."""
    def die_with_parent():
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen([str(word) for word in argv], start_new_session=True,
                            preexec_fn=die_with_parent, **options)


def end(process, how=signal.SIGTERM, seconds=10):
    """End a process of ours and wait for it."""
    if process.poll() is None:
        process.send_signal(how)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cpu_seconds(pid):
    """Processor time that a process has used, all its threads, without its children."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid):
    result = []
    for tasks in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            result += [int(word) for word in tasks.read_text().split()]
    return result


REPORTING = pathlib.Path("/sys/module/page_reporting/parameters/page_reporting_order")
REPORTING_NEVER = 11    # larger than any block of free memory


def keep_memory(stack):
    """Free memory stays this machine's until the end, however long it is free."""
    if not REPORTING.exists():
        raise Failure(f"{REPORTING} is not there: nobody takes free memory from this machine")
    before = REPORTING.read_text()
    stack.callback(REPORTING.write_text, before)
    REPORTING.write_text(str(REPORTING_NEVER))


class Memory:
    """This machine's memory, of which a measurement must not be the first to touch any.

    A virtual machine's memory may be given to it page by page, at the first
    touch, and taken back when it has been free for some seconds (the balloon's
    free page reporting). On the development machine a GiB then costs 3 to 6 s
    instead of 0.3 s, whoever is measured. So more than a move needs is filled
    and freed again, right before the move, until it is fast: the kernel gives
    out first what was freed last.
    """

    def __init__(self, size):
        self.size = size
        self.cold = []      # share that was slow before each move, in the first pass
        self.left = []      # and in the last

    def warm(self):
        for done in range(FILL_PASSES):
            slow = self._fill()
            if done == 0:
                self.cold.append(slow)
            if slow < 0.01:
                break
        self.left.append(slow)

    def _fill(self):
        block = os.urandom(MIB)
        path = pathlib.Path(tempfile.mktemp(prefix="godwit-bench.", dir="/dev/shm"))
        slow = 0
        try:
            with open(path, "xb", buffering=0) as file:
                for _ in range(self.size // MIB):
                    began = time.monotonic()
                    file.write(block)
                    slow += time.monotonic() - began > SLOW
        finally:
            path.unlink(missing_ok=True)
        return slow / (self.size // MIB)

    def note(self):
        if not self.left:
            return "memory: not warmed"
        return (f"memory: {self.size / GIB:g} GiB filled and freed before each move, of which up to "
                f"{max(self.cold) * 100:.0f} % was slow to get, finally {max(self.left) * 100:.0f} %"
                + ("; COLD MEMORY: do not trust times" if max(self.left) > 0.03 else ""))


class MemoryGroup:
    """A control group whose processes have only so much memory, caches included."""

    def __init__(self, size):
        old, new = pathlib.Path("/sys/fs/cgroup/memory"), pathlib.Path("/sys/fs/cgroup")
        self.path = (old if old.is_dir() else new) / f"gwbench.{os.getpid()}"
        try:
            if not old.is_dir():
                (new / "cgroup.subtree_control").write_text("+memory")
            self.path.mkdir()
            (self.path / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")
             ).write_text(str(size))
        except OSError as error:
            with contextlib.suppress(OSError):
                self.path.rmdir()
            raise Failure(f"no control group that limits memory: {error}") from None

    def enter(self):
        """What to put before a command, so that it runs in it."""
        return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(self.path)]

    def close(self):
        def gone():
            with contextlib.suppress(OSError):
                self.path.rmdir()
            return not self.path.exists()
        wait_until(gone, 30, f"the end of all processes in {self.path}")


class Network:
    """lab/net's two hosts and client, as long as this object is open."""

    def __init__(self, script, prefix):
        self.script = script
        self.prefix = prefix

    def _net(self, *words):
        done = subprocess.run([str(self.script), *words], capture_output=True, text=True)
        if done.returncode:
            raise Failure(done.stderr.strip() or f"{self.script} {' '.join(words)} failed")

    def up(self, rate=""):
        """Make it, or change its rate (tc's units, empty: unshaped)."""
        self._net("up", self.prefix, *([rate] if rate else []))

    def close(self):
        self._net("down", self.prefix)

    def enter(self, host):
        """What to put before a command, so that it runs on a host ("c": the client).

        Not `ip netns exec`: that makes a private mount namespace, in which
        godwitd's tmpfs would be invisible to everybody else.
        """
        return ["nsenter", f"--net=/run/netns/{self.prefix}-{host}"]

    def forget_guest(self):
        """A fresh guest, which has not spoken yet, is not where the last one was seen."""
        subprocess.run(["ip", "-n", f"{self.prefix}-c", "neighbour", "flush", "dev", "br0"],
                       check=False)

    def sent(self, host):
        """Bytes that a host has put on the link so far, headers and all."""
        done = subprocess.run(["ip", "-j", "-s", "-n", f"{self.prefix}-{host}", "link", "show",
                               "dev", "peer0"], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)[0]["stats64"]["tx"]["bytes"]

    def _socket(self, host):
        """A TCP socket on a host: it stays in the namespace that it was made in."""
        made = []

        def make():  # a thread may be in another namespace than its process
            with open(f"/run/netns/{self.prefix}-{host}") as namespace:
                if libc.setns(namespace.fileno(), CLONE_NEWNET) == 0:
                    made.append(socket.socket())
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            raise Failure(f"cannot enter the namespace {self.prefix}-{host}")
        return made[0]

    def answers(self, host, address, port):
        """Whether somebody listens there, as seen from a host."""
        with self._socket(host) as client:
            client.settimeout(1)
            return client.connect_ex((address, port)) == 0

    def ask(self, host, address, port, text, seconds=30):
        """What somebody answers to a text, until they close the connection."""
        answer = b""
        try:
            with self._socket(host) as client:
                client.settimeout(seconds)
                client.connect((address, port))
                client.sendall(text.encode())
                while data := client.recv(65536):
                    answer += data
        except OSError as error:
            raise Failure(f"{address} port {port}: {error}") from None
        return answer.decode(errors="replace")

    def measure_bandwidth(self, seconds=3):
        """Bytes per second of one TCP connection from a to b, as they arrive."""
        with self._socket("b") as listener, self._socket("a") as sender:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((ADDRESS["b"], LINK_PORT))
            listener.listen()
            sender.connect((ADDRESS["b"], LINK_PORT))
            receiver, _ = listener.accept()

            def send():
                block = bytes(MIB)
                stop = time.monotonic() + seconds
                while time.monotonic() < stop:
                    sender.sendall(block)
                sender.shutdown(socket.SHUT_WR)
            thread = threading.Thread(target=send)
            thread.start()
            buffer = bytearray(MIB)
            receiver.recv_into(buffer)  # the clock starts after the first bytes
            first = last = time.monotonic()
            received = 0
            while count := receiver.recv_into(buffer):
                received += count
                last = time.monotonic()
            thread.join()
            receiver.close()
        return received / (last - first)


class Daemon:
    """A godwitd on one host."""

    def __init__(self, build, network, host, folder, name=None, port=PEER_PORT, *options,
                 group=None):
        self.network = network
        self.host = host
        self.name = name or host
        self.options = options
        self.group = group
        self.godwit = build / "src/godwit"
        self.godwitd = build / "src/godwitd"
        self.root = folder / self.name
        self.log = folder / f"godwitd-{self.name}.log"
        self.address = f"{ADDRESS[host]}:{port}"
        # Host a keeps the registry of both.
        self.registry = [] if self.name == "a" else ["--registry", f"godwit://{ADDRESS['a']}:{PEER_PORT}"]
        self._start()

    def _start(self):
        with open(self.log, "a") as log:
            self.process = spawn(
                self.network.enter(self.host) + (self.group.enter() if self.group else []) +
                [self.godwitd, "--root", self.root,
                 "--listen", self.address, "--name", self.name, *self.registry, *self.options],
                stdout=log, stderr=log)
        try:
            wait_until(self._ready, 10, f"godwitd on host {self.host}: see {self.log}")
        except BaseException:
            end(self.process)
            raise

    @staticmethod
    def help(build):
        """What a godwitd says of itself."""
        return subprocess.run([str(build / "src/godwitd"), "--help"], capture_output=True,
                              text=True).stdout

    def begin_anew(self):
        """From now on a host that has never seen a VM."""
        self.close()
        shutil.rmtree(self.root)
        self._start()

    def _ready(self):
        if self.process.poll() is not None:
            raise Failure(f"godwitd ended: {self.log.read_text().strip()}")
        return (self.root / "run/control.sock").exists()

    def command(self, *words):
        return [str(self.godwit), "--root", str(self.root), *[str(word) for word in words]]

    def call(self, *words):
        """Run a godwit command; its JSON, if it prints any."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True)
        if done.returncode:
            raise Failure(done.stderr.strip())
        return json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else None

    def directory(self, vm):
        """{dir} of a VM here."""
        return self.root / "run/vm" / vm

    def stop_all(self):
        for vm in self.call("list", "--json"):
            self.call("stop", vm["name"])

    def close(self):
        with contextlib.suppress(Failure):
            self.stop_all()
        end(self.process)
        for note in self.root.glob("run/vm/*/qemu.pid"):
            pid, start = note.read_text().split()
            with contextlib.suppress(OSError, IndexError):
                text = pathlib.Path(f"/proc/{pid}/stat").read_text()
                if text.rpartition(")")[2].split()[19] == start:
                    os.kill(int(pid), signal.SIGKILL)
                    time.sleep(0.5)
        for mount in pathlib.Path("/proc/self/mounts").read_text().splitlines():
            where = mount.split()[1]
            if where.startswith(f"{self.root}/"):
                subprocess.run(["umount", where], check=False)


def facts(commit_of, qemu):
    """What a result must be read with."""
    def output(*argv):
        try:
            return subprocess.run(argv, capture_output=True, text=True).stdout.strip()
        except OSError:
            return ""
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    commit = output("git", "-C", str(commit_of), "rev-parse", "--short=12", "HEAD")
    if output("git", "-C", str(commit_of), "status", "--porcelain", "--", "src"):
        commit += "-dirty"
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit or "unknown",
        "kernel": os.uname().release,
        "qemu": output(str(qemu), "--version").partition("\n")[0],
        "cpu": cpu[1] if cpu else "unknown",
        "cpus": os.cpu_count(),
        "memory-gib": round(int(memory[1]) / MIB, 1) if memory else 0,
        "load-at-start": os.getloadavg()[0],
    }


def steal():
    """Processor time that other guests of this machine's host took, and all, in ticks."""
    ticks = [int(word) for word in
             pathlib.Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    return ticks[7], sum(ticks)
