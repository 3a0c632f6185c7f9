# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab guest in a QEMU: its command line, its monitor, its console, its client."""
import contextlib
import json
import pathlib
import re
import signal
import socket
import subprocess
import time

from hosts import GUEST_ADDRESS, Failure, cpu_seconds, end, spawn, wait_until

ECHO_PORT = 7


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
            event["data"]["status"] in ("completed", "failed", "cancelled"))


def command_line(qemu, images, workload, folder):
    """The QEMU of a lab guest, without its memory; folder may be Godwit's {dir}."""
    append = (images / "append").read_text().strip()
    return [str(qemu), "-accel", "tcg", "-machine", "q35", "-display", "none", "-nodefaults",
            "-no-reboot", "-kernel", str(images / "vmlinuz"),
            "-initrd", str(images / "initrd.img"), "-append", f"{append} gw.run={workload}",
            "-netdev", "tap,id=n,ifname=gwtap0,script=no,downscript=no",
            "-device", "virtio-net-pci,netdev=n,romfile=",
            "-serial", f"file:{folder}/serial.log",
            "-qmp", f"unix:{folder}/bench.qmp,server=on,wait=off"]


class Console:
    """The serial console's lines, as the guest writes them to a file."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def text(self):
        with contextlib.suppress(OSError):
            return self.path.read_text(errors="replace")
        return ""

    def wait(self, line, seconds):
        wait_until(lambda: line in self.text(), seconds, f"'{line}' on the guest's console")

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


class Blackout:
    """lab/host/blackout in the client's namespace, from its first echo on."""

    def __init__(self, build, network):
        network.forget_guest()
        self.process = spawn(network.enter("c") + [build / "lab/blackout", GUEST_ADDRESS, ECHO_PORT,
                                                   0, "--json"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        if "first echo" not in line:
            end(self.process)
            raise Failure(line.strip() or "no echo came from the guest")

    def finish(self):
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=30)
        return json.loads(output)

    def close(self):
        end(self.process)
        self.process.stdout.close()
        self.process.stderr.close()
