# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab guest in a QEMU: its command line, its monitor, its console, its client."""
import contextlib
import json
import pathlib
import re
import select
import signal
import socket
import subprocess
import time

from hosts import GUEST_ADDRESS, Failure, Late, cpu_seconds, end, spawn, wait_until

ECHO_PORT = 7
WEB_PORT = 80
EXEC_PORT = 7001


class Qmp:
    """A client of QEMU's monitor. Events are kept until somebody waits for them."""

    def __init__(self, path, seconds=30):
        self.path = path
        self.events = []
        self.buffer = b""
        self.socket = wait_until(self._connect, seconds, f"monitor {path}")
        self._receive(time.monotonic() + seconds)  # the greeting
        self.call("qmp_capabilities")

    def _connect(self):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(self.path))
        except OSError:
            connection.close()
            return None
        return connection

    def _receive(self, deadline):
        while b"\n" not in self.buffer:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                raise Late(f"monitor {self.path}: nothing came") from None
            except OSError as error:
                raise Failure(f"monitor {self.path}: {error}") from None
            if not data:
                raise Failure(f"monitor {self.path}: QEMU has ended")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def call(self, command, **arguments):
        request = {"execute": command, "arguments": arguments}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        deadline = time.monotonic() + 30
        while True:
            message = self._receive(deadline)
            if "error" in message:
                raise Failure(f"QEMU: {command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]
            self.events.append(message)

    def wait_event(self, wanted, seconds):
        """Wait for the first event for which wanted(event) is true; when it happened."""
        deadline = time.monotonic() + seconds
        while True:
            while self.events:
                event = self.events.pop(0)
                if wanted(event):
                    stamp = event["timestamp"]
                    return stamp["seconds"] + stamp["microseconds"] / 1e6
            self.events.append(self._receive(deadline))

    def close(self):
        self.socket.close()


def is_resume(event):
    return event["event"] == "RESUME"


def is_migration_end(event):
    return (event["event"] == "MIGRATION" and
            event["data"]["status"] in ("completed", "failed", "cancelled", "postcopy-paused"))


class Load:
    """What runs in the guest, and what loads it from outside, while it moves."""

    def __init__(self, *runs, ready=(), quiet=False, client=None, disk=None, writable=False,
                 cpus=1, agent=None):
        self.runs = runs        # as gw.run= takes them
        self.ready = ready      # (text, how often) that the console shows when it may move
        self.quiet = quiet      # whether nothing happens any more then
        self.client = client    # its class, and words that this takes
        self.disk = disk        # an ext4 in a file, the same one on all hosts, which becomes /disk
        self.writable = writable
        self.cpus = cpus
        self.agent = agent      # how the guest tells of its page cache: module, agent; None: it does not

    @property
    def initrd(self):
        if self.agent:
            return "servers-agent.img"
        return "servers.img" if self.client or self.disk else "initrd.img"

    @property
    def mount(self):
        words = [f"gw.disk={'rw' if self.writable else 'ro'}"] if self.disk else []
        return words + {None: [], "agent": ["gw.agent"], "module": ["gw.module", "gw.agent"]}[self.agent]

    @property
    def port(self):
        """Of the agent, for Godwit's run."""
        return ["--agent"] if self.agent else []

    @property
    def drive(self):
        return ["-drive", f"file={self.disk},format=raw,if=virtio,"
                f"readonly={'off' if self.writable else 'on'}"] if self.disk else []


def command_line(qemu, images, load, folder):
    """The QEMU of a lab guest, without its memory; folder may be Godwit's {dir}."""
    append = [(images / "append").read_text().strip(), *load.mount,
              *(f"gw.run={run}" for run in load.runs)]
    return [str(qemu), "-accel", "tcg", "-machine", "q35", "-smp", str(load.cpus),
            "-display", "none", "-nodefaults", "-no-reboot", "-kernel", str(images / "vmlinuz"),
            "-initrd", str(images / load.initrd), "-append", " ".join(append),
            "-netdev", "tap,id=n,ifname=gwtap0,script=no,downscript=no",
            "-device", "virtio-net-pci,netdev=n,romfile=", *load.drive,
            "-serial", f"file:{folder}/serial.log",
            "-qmp", f"unix:{folder}/bench.qmp,server=on,wait=off"]


def shell(network, line):
    """Run a line of shell in the guest (lab/guest/execd.c), and wait for its end; what it prints."""
    network.forget_guest()
    return network.ask("c", GUEST_ADDRESS, EXEC_PORT, line + "\n")


class Console:
    """The serial console's lines, as the guest writes them to a file."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def text(self):
        with contextlib.suppress(OSError):
            return self.path.read_text(errors="replace")
        return ""

    def wait(self, line, seconds, count=1):
        wait_until(lambda: self.text().count(line) >= count, seconds,
                   f"'{line}' on the guest's console")

    def numbers(self, name):
        """What a workload has printed so far as "NAME: NUMBER", whole lines only."""
        return [int(word) for word in re.findall(rf"^{name}: (\d+)\n", self.text(), re.M)]


def wait_quiet(pid, seconds=60):
    """Wait until a guest that has nothing more to do does nothing: 1 s below 5 % CPU."""
    calm = 0
    stop = time.monotonic() + seconds
    while calm < 2:
        before = cpu_seconds(pid)
        time.sleep(0.5)
        calm = calm + 1 if cpu_seconds(pid) - before < 0.025 else 0
        if time.monotonic() > stop:
            raise Failure(f"the guest (process {pid}) does not become quiet")


class Client:
    """A program of lab/host in the client's namespace, from what it says first on."""

    def __init__(self, network, argv, first, seconds):
        network.forget_guest()
        self.process = spawn(network.enter("c") + argv + ["--json"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        said = select.select([self.process.stderr], [], [], seconds)[0]
        line = self.process.stderr.readline() if said else f"{argv[0]}: no answer"
        if first not in line:
            self.close()
            raise Failure(line.strip() or f"{argv[0]}: no answer came from the guest")

    def finish(self):
        """End it; its results."""
        self.process.send_signal(signal.SIGINT)
        output, errors = self.process.communicate(timeout=30)
        if not output:
            raise Failure(errors.strip())
        return json.loads(output)

    def close(self):
        end(self.process)
        self.process.stdout.close()
        self.process.stderr.close()


class Blackout(Client):
    def __init__(self, build, network):
        super().__init__(network, [build / "lab/blackout", GUEST_ADDRESS, ECHO_PORT, 0],
                         "first echo", 60)


class ServerLoad(Client):
    """A client of a server, from when the server is full."""

    def __init__(self, network, argv, port, seconds):
        network.forget_guest()
        wait_until(lambda: network.answers("c", GUEST_ADDRESS, port), 60, f"the guest's port {port}")
        super().__init__(network, argv + [GUEST_ADDRESS, port, 0], "filled", seconds)


class KeyValueLoad(ServerLoad):
    """lab/host/kvload."""

    def __init__(self, build, network, load, mib, port, seconds):
        super().__init__(network, [build / "lab/kvload", load, mib], port, seconds)


class WebLoad(ServerLoad):
    """lab/host/webload, which has fetched each file once."""

    def __init__(self, build, network, files, kib, seconds):
        super().__init__(network, [build / "lab/webload", "load", files, kib], WEB_PORT, seconds)
