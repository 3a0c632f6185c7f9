# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts, VMs and networks that end-to-end tests play with.

    Lab     a temporary folder and everything that lives in it
    Host    one godwitd with its --root, perhaps in a network namespace
    Vm      a guest, wherever it runs; its serial console, its own QMP monitor
    Network lab/net

Rules: everything is waited for by its condition, with a deadline. Whatever a
test starts has the lab's folder in its command line, so that Lab.check() finds
what was left behind, and Lab.destroy() ends it: by its process id, never by a
name.
"""

import ctypes
import glob
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("GODWIT_BUILD", os.path.join(REPO, "build")))
GUEST = os.path.abspath(os.environ.get("GODWIT_GUEST", os.path.join(REPO, "build", "guest")))
GODWIT = os.path.join(BUILD, "src", "godwit")
GODWITD = os.path.join(BUILD, "src", "godwitd")
QEMU = "qemu-system-x86_64"
MIB = 1 << 20

# What AddressSanitizer, LeakSanitizer and UBSan write when they found something.
SANITIZER = re.compile(r"(ERROR|WARNING): \w+Sanitizer|SUMMARY: \w+Sanitizer|: runtime error: ")

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


class Failure(AssertionError):
    """What a test found wrong."""


class Skip(Exception):
    """A test that this machine cannot run."""

    def __init__(self, reason, kvm=False):
        super().__init__(reason)
        self.kvm = kvm


# Deadlines are for what hangs: minutes, also on a slow or a busy machine.
PATIENCE = float(os.environ.get("GODWIT_PATIENCE", "10"))


def check(condition, message):
    if not condition:
        raise Failure(message)


def wait_for(what, condition, timeout=20, every=0.01):
    """Wait until condition() is true, and return what it returned."""
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"waited {timeout * PATIENCE:.0f} s in vain for {what}")
        time.sleep(every)


def read_text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


# Processes

def cmdline(pid):
    """The command line of a process, words separated by blanks; empty for a dead one."""
    return read_text(f"/proc/{pid}/cmdline").replace("\0", " ").strip()


def processes(path):
    """Ids of the processes, but this one, whose command line has @path or a path below it."""
    named = re.compile(re.escape(path) + r"(/|[ ,]|$)")
    return [int(entry) for entry in os.listdir("/proc")
            if entry.isdigit() and int(entry) != os.getpid() and named.search(cmdline(entry))]


def parent(pid):
    """A process' parent, or 0 for a dead one."""
    stat = read_text(f"/proc/{pid}/stat")
    return int(stat[stat.rindex(")") + 2:].split()[1]) if stat else 0


def is_godwitd(pid):
    try:
        return os.readlink(f"/proc/{pid}/exe").split(" ")[0] == os.path.realpath(GODWITD)
    except OSError:
        return False


def kill(pid, how=signal.SIGKILL):
    """Kill a process and wait until it is no more (or a zombie)."""
    os.kill(pid, how)
    wait_for(f"process {pid} to end", lambda: not cmdline(pid), 5, 0.001)


# Network namespaces

def namespace_new():
    """Put this process into a network namespace of its own, with nothing but lo."""
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def socket_in(namespace, family=socket.AF_INET, kind=socket.SOCK_STREAM, protocol=0):
    """A socket (of TCP) in the named namespace (None: ours)."""
    made = []

    def make():
        if namespace:
            with open(f"/run/netns/{namespace}", "rb") as f:
                if libc.setns(f.fileno(), CLONE_NEWNET):
                    made.append(OSError(ctypes.get_errno(), "setns"))
                    return
        made.append(socket.socket(family, kind, protocol))

    # A namespace is a thread's property: borrow a thread for it.
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


class Network:
    """Two hosts and a client (lab/net)."""

    def __init__(self, prefix, up=True):
        self.prefix = prefix
        if up:
            self.shape()

    def shape(self, *rate):
        """Let the host link take so much (in tc's units); whatever it can without a rate."""
        self._net("up", self.prefix, *rate)

    @staticmethod
    def _net(*args):
        subprocess.run([os.path.join(REPO, "lab", "net"), *args], check=True,
                       stdout=subprocess.DEVNULL)

    def namespace(self, which):
        return f"{self.prefix}-{which}"

    def cut(self):
        """From now on the host link loses every packet, silently."""
        self._net("link", self.prefix, "cut")

    def mend(self):
        self._net("link", self.prefix, "mend")

    def down(self):
        self._net("down", self.prefix)


def network_name(pid, number):
    """The prefix of a test process' networks."""
    return f"gwt{pid}{'xyz'[number]}"


# godwit, the command

class Result:
    """How a command ended."""

    def __init__(self, args, status, out, err):
        self.args, self.status, self.out, self.err = args, status, out, err

    def __str__(self):
        return f"godwit {' '.join(self.args)}: status {self.status}\n{self.out}{self.err}"

    def json(self):
        try:
            return json.loads(self.out)
        except ValueError as e:
            raise Failure(f"no JSON from {self}") from e

    def ok(self):
        check(self.status == 0, f"failed: {self}")
        return self

    def failed(self, *texts):
        """It failed with status 1 and a message that has all of @texts."""
        check(self.status == 1, f"should have failed with status 1: {self}")
        for text in texts:
            check(text in self.err, f"'{text}' is missing in the message of {self}")
        return self


class Command:
    """A godwit command under way."""

    def __init__(self, host, args):
        self.args = args
        self.process = subprocess.Popen([os.path.join(host.build, "src", "godwit"),
                                         "--root", host.root, *args],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)

    def signal(self, number):
        self.process.send_signal(number)

    def finish(self, timeout=60):
        try:
            out, err = self.process.communicate(timeout=timeout * PATIENCE)
        except subprocess.TimeoutExpired as e:
            self.process.kill()
            out, err = self.process.communicate()
            raise Failure(f"no end of godwit {' '.join(self.args)}: {out}{err}") from e
        check(not SANITIZER.search(err), f"sanitizer report of godwit: {err}")
        return Result(self.args, self.process.returncode, out, err)


# godwitd

class Host:
    """One host: a godwitd with its own root."""

    def __init__(self, lab, name, address, namespace=None, options=(), path=None,
                 build=BUILD):
        self.build = build  # whose godwitd and godwit: another release's, perhaps
        self.lab, self.name, self.address = lab, name, address
        self.namespace, self.options, self.path = namespace, list(options), path
        self.root = os.path.join(lab.dir, name)
        self.run = os.path.join(self.root, "run")
        self.log = os.path.join(lab.dir, f"{name}.log")
        self.daemon = None
        os.makedirs(self.root, exist_ok=True)

    def start(self):
        """Start godwitd and wait until it says that it is ready."""
        notify = os.path.join(self.root, "notify")
        if os.path.exists(notify):
            os.unlink(notify)
        ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ready.bind(notify)
        env = dict(os.environ, NOTIFY_SOCKET=notify)
        if self.path:
            env["PATH"] = f"{self.path}:{env['PATH']}"
        args = [os.path.join(self.build, "src", "godwitd"), "--root", self.root,
                "--listen", self.address, "--name", self.name, *self.options]
        if self.namespace:
            # nsenter becomes godwitd, and unlike "ip netns exec" leaves the mounts alone.
            args = ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *args]
        with open(self.log, "ab") as log:
            self.daemon = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log,
                                           stderr=log, env=env)
        try:
            wait_for(f"godwitd {self.name}", lambda: self._is_ready(ready), 10, 0)
        finally:
            ready.close()
            os.unlink(notify)
        return self

    def _is_ready(self, ready):
        if select.select([ready], [], [], 0.05)[0]:
            return b"READY=1" in ready.recv(4096)
        check(self.daemon.poll() is None,
              f"godwitd {self.name} ended at once: {read_text(self.log)[-500:]}")
        return False

    def stop(self):
        """End godwitd politely. VMs run on."""
        self.daemon.terminate()
        try:
            status = self.daemon.wait(10 * PATIENCE)
        except subprocess.TimeoutExpired as e:
            raise Failure(f"godwitd {self.name} does not end on SIGTERM") from e
        check(status == 0, f"godwitd {self.name} ended with status {status}: "
                           f"{read_text(self.log)[-3000:]}")
        self.daemon = None

    def kill(self):
        """End godwitd as a crash would."""
        self.daemon.kill()
        self.daemon.wait()
        self.daemon = None

    def start_godwit(self, *args):
        return Command(self, list(args))

    def godwit(self, *args, timeout=60):
        return self.start_godwit(*args).finish(timeout)

    def dir(self, name):
        return os.path.join(self.run, "vm", name)

    def list(self):
        """name -> entry of `godwit list`."""
        return {vm["name"]: vm for vm in self.godwit("list", "--json").ok().json()}

    def state(self, name):
        return self.list().get(name, {}).get("state")

    def status(self, name):
        return self.godwit("status", name, "--json").ok().json()

    def journal(self, name):
        text = read_text(os.path.join(self.dir(name), "journal.json"))
        return json.loads(text) if text else None

    def workers(self):
        """Process ids of this daemon's workers; those for the registry come and go as they like."""
        return [pid for pid in processes(self.root) if is_godwitd(pid) and
                pid != self.daemon.pid and parent(pid) == self.daemon.pid and
                read_text(f"/proc/{pid}/comm").strip() != "registry"]

    def worker(self):
        """The one worker; a `godwit list` of the test itself may just be ending."""
        return wait_for(f"one worker on {self.name}",
                        lambda: (lambda w: w if len(w) == 1 else None)(self.workers()), 5)[0]

    def qemu(self, name):
        """Process id of a VM's QEMU by its record."""
        text = read_text(os.path.join(self.dir(name), "vm.json"))
        return json.loads(text)["pid"] if text else 0

    def mounts(self):
        return [line.split()[1] for line in read_text("/proc/self/mounts").splitlines()
                if line.split()[1].startswith(self.root + "/")]

    def ram_files(self):
        found = []
        for folder in ("ram", "ram-small"):
            path = os.path.join(self.run, folder)
            for part in (path, os.path.join(path, "vm"), os.path.join(path, "held")):
                if os.path.isdir(part):
                    found += [name for name in os.listdir(part)
                              if part != path or name not in ("kept", "vm", "held")]
        return found

    def images(self):
        """name -> entry of `godwit images`."""
        return {image["name"]: image for image in self.godwit("images", "--json").ok().json()}

    def forget_images(self):
        """Remove all of them, so that godwitd leaves nothing when it ends."""
        for name in self.images():
            self.godwit("images", "rm", name).ok()

    def kept_file(self, name, memory="godwit-ram"):
        """The RAM file of a kept image."""
        return os.path.join(self.run, "ram", "kept", name, memory)

    def leftovers(self, vms):
        """What is here and should not be, when only @vms are."""
        problems = []
        folder = os.path.join(self.run, "vm")
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        expected = sorted(vm.name for vm in vms)
        if names != expected:
            problems.append(f"VM folders {names}, expected {expected}")
        for name in names:
            if os.path.exists(os.path.join(folder, name, "journal.json")):
                problems.append(f"journal of {name}: {self.journal(name)}")
        ram = sorted(self.ram_files())
        managed = sorted(vm.name for vm in vms if not vm.attached)
        if ram != managed:
            problems.append(f"RAM files of {ram}, expected {managed}")
        qemus = {self.qemu(vm.name) for vm in vms}
        for pid in processes(self.root):
            words = cmdline(pid)
            if not words or pid in qemus or pid in self.lab.own:
                continue
            if self.daemon and pid == self.daemon.pid:
                continue
            problems.append(f"process {pid}: {words[:200]}")
        for vm in vms:
            problems += vm.marks()
        return problems

    def check_log(self):
        found = SANITIZER.search(read_text(self.log))
        if found:
            text = read_text(self.log)
            raise Failure(f"sanitizer report in {self.log}:\n" +
                          text[max(0, found.start() - 200):found.start() + 4000])


# QEMU's monitor

class Qmp:
    """A client of a monitor of the test's own, beside Godwit's."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(20 * PATIENCE)
        wait_for(f"QMP socket {path}", lambda: self._connect(path))
        self.file = self.socket.makefile("r", encoding="utf-8")
        self.events = []
        self._next()
        self.call("qmp_capabilities")

    def _connect(self, path):
        try:
            self.socket.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def _next(self):
        line = self.file.readline()
        check(line, "QEMU closed the test's monitor")
        message = json.loads(line)
        if "event" in message:
            self.events.append(message)
            return None
        return message

    def call(self, command, **arguments):
        message = {"execute": command}
        if arguments:
            message["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self.socket.sendall(json.dumps(message).encode() + b"\n")
        answer = None
        while answer is None:
            answer = self._next()
        check("error" not in answer, f"{command}: {answer}")
        return answer["return"]

    def hmp(self, line):
        return self.call("human-monitor-command", command_line=line)

    def wait_event(self, name, data=lambda data: True):
        """The next event of that name, past or to come; it is forgotten then."""
        while True:
            for i, event in enumerate(self.events):
                if event["event"] == name and data(event.get("data", {})):
                    del self.events[:i + 1]
                    return event
            self._next()

    def close(self):
        self.file.close()
        self.socket.close()


# Guests

class Vm:
    """A guest, and where it runs now."""

    passes = re.compile(r"memtest: pass (\d+) ok")

    def __init__(self, lab, name, memory="128M", run=("memtest:8",), args=(), accel="tcg",
                 kernel=True, qemu=QEMU, machine="q35"):
        self.lab, self.name, self.memory = lab, name, memory
        self.host = None
        self.attached = False
        self.paused = False
        self.text = ""       # the serial console, over all hosts
        self._serial = None  # the descriptor it is read from
        self.args = [qemu, "-accel", accel, "-machine", machine, "-display", "none",
                     "-nodefaults", "-no-reboot", "-serial", "file:{dir}/serial.log",
                     "-qmp", "unix:{dir}/user.qmp,server=on,wait=off"]
        if kernel:
            append = read_text(os.path.join(GUEST, "append")).strip()
            append += "".join(f" gw.run={work}" for work in run)
            self.args += ["-kernel", os.path.join(GUEST, "vmlinuz"), "-initrd",
                          os.path.join(GUEST, "initrd.img"), "-append", append]
        self.args += list(args)
        lab.vms.append(self)

    # Life

    def boot(self, host, *options):
        """Start it on @host by `godwit run`, and wait until its workload has begun."""
        host.godwit("run", self.name, "--memory", self.memory, *options, "--", *self.args).ok()
        self.settle(host)
        self.lives()
        return self

    def settle(self, host):
        """It is at @host now: follow its console there."""
        self.host = host
        path = os.path.join(host.dir(self.name), "serial.log")
        self.follow(path)

    def follow(self, path):
        if self._serial is not None:
            self.read()
            os.close(self._serial)
        self._serial = os.open(path, os.O_RDONLY)
        self.read()

    def stop(self):
        host, self.host = self.host, None
        self.lab.vms.remove(self)
        self.read()
        host.godwit("stop", self.name).ok()

    def gone(self):
        """It has ended, or was ended, by other means."""
        self.host = None
        self.lab.vms.remove(self)

    # Its console

    def read(self):
        """Take in what the console says, and look for bad news."""
        while True:
            data = os.read(self._serial, 65536)
            if not data:
                break
            self.text += data.decode("latin-1")
        check("BAD" not in self.text,
              f"{self.name} lost memory: " + "".join(
                  line + "\n" for line in self.text.splitlines() if "BAD" in line))
        return self.text

    def count(self):
        """How many passes its workload has done, as far as its console says."""
        return len(self.passes.findall(self.read()))

    def lives(self, passes=2):
        """Wait until its workload has done that many more passes."""
        goal = self.count() + passes
        try:
            wait_for(f"{self.name} to work on", lambda: self.count() >= goal)
        except Failure as e:
            raise Failure(f"{e}; its console ends with: {self.text[-300:]!r}; "
                          f"{self.host.name} says {self.host.list().get(self.name)}") from e

    def rests(self, seconds=0.3):
        """Make sure that it does nothing for a while."""
        before = self.count()
        time.sleep(seconds)
        check(self.count() == before, f"{self.name} runs, and should not")

    def wait_line(self, pattern, timeout=20):
        regex = re.compile(pattern)
        return wait_for(f"'{pattern}' on the console of {self.name}",
                        lambda: regex.search(self.read()), timeout)

    def check_console(self):
        """No pass may be lost or done twice: a guest is moved, not copied or rewound."""
        numbers = [int(n) for n in self.passes.findall(self.read())]
        check(numbers == list(range(1, len(numbers) + 1)),
              f"passes of {self.name} are not consecutive: {numbers}")

    # Moving

    def migrate(self, address, *options):
        """Begin a migration to @address; the command under way."""
        return self.host.start_godwit("migrate", self.name, address, "--verify", *options)

    def move(self, to, *options, via=None):
        """Move it to @to (through @via), see it work there, return the JSON.

        On a machine that is busy the default limit is missed as often as not, and a move
        whose test is not of that is not to fail for it.
        """
        if "--downtime-limit" not in options:
            options += ("--downtime-limit", "2000")
        result = self.migrate(via or to.address, "--json", *options).finish().ok().json()
        check(result["status"] == "completed", f"status {result['status']}")
        check(result["godwit"]["verified"] is True, "not verified")
        self.arrived(to)
        return result

    def arrived(self, to):
        check(not os.path.exists(self.host.dir(self.name)),
              f"the folder of {self.name} is still on {self.host.name}")
        self.attached = False
        self.settle(to)
        wait_for(f"{to.name} to be done", lambda: not to.daemon or not to.workers(), 5)
        if not self.paused:
            self.lives()

    def qmp(self):
        return self.of(self.host)

    def of(self, host):
        """The monitor of its QEMU on @host, wherever the guest is."""
        return Qmp(os.path.join(host.dir(self.name), "user.qmp"))

    def pid(self):
        return self.host.qemu(self.name)

    def marks(self):
        """What a migration may have left in or at its QEMU."""
        pid = self.pid()
        if not cmdline(pid):
            return [f"QEMU {pid} of {self.name} is dead"]
        problems, tracked = [], 0
        # One that arrived is tracked until it leaves, by a userfaultfd of its own.
        record = json.loads(read_text(os.path.join(self.host.dir(self.name), "vm.json")))
        own = (record.get("watch") or {}).get("descriptors", [])
        for line in read_text(f"/proc/{pid}/smaps").splitlines():
            flags = set(line.split()) if line.startswith("VmFlags:") else set()
            tracked += "uw" in flags
            if {"um", "ui"} & flags or ("uw" in flags and not own):
                problems.append(f"memory of {self.name} is registered: {line}")
        if own and not tracked:
            problems.append(f"memory of {self.name} is not tracked any more")
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")
                     if int(fd) not in own]
        except OSError as e:
            return [f"QEMU {pid} of {self.name}: {e}"]
        if any("userfaultfd" in link for link in links):
            problems.append(f"QEMU of {self.name} holds a userfaultfd")
        if "TracerPid:\t0" not in read_text(f"/proc/{pid}/status"):
            problems.append(f"QEMU of {self.name} is traced")
        return problems + self._settings()

    def _settings(self):
        """Migration settings that QEMU did not have when it was started."""
        if self.attached:
            return []
        qmp = self.qmp()
        on = [c["capability"] for c in qmp.call("query-migrate-capabilities") if c["state"]]
        rate = qmp.call("query-migrate-parameters")["max-bandwidth"]
        qmp.close()
        problems = [f"capabilities of {self.name} are on: {on}"] if on else []
        if rate != 128 * MIB:
            problems.append(f"max-bandwidth of {self.name} is {rate}")
        return problems


# All of it

class Lab:
    """A temporary folder, its hosts, VMs, networks, and the looking after them."""

    def __init__(self, folder=None):
        self.dir = folder or tempfile.mkdtemp(prefix="gwt-")
        self.hosts, self.vms, self.networks, self.closers = [], [], [], []
        self.own = set()  # processes of the test itself that name the folder
        self.ports = 7000
        self.disks = []

    def address(self):
        """An address nobody uses; the whole namespace is ours."""
        self.ports += 1
        return f"127.0.0.1:{self.ports}"

    def host(self, name, *options, images="0", **more):
        """A running godwitd, that keeps so much of VMs that leave: by default nothing."""
        host = Host(self, name, more.pop("address", None) or self.address(),
                    options=(*options, "--image-quota", images), **more)
        self.hosts.append(host)
        return host.start()

    def disk(self):
        """A folder for a host's --swap-dir, on a disk, as /tmp need not be."""
        path = f"{self._disk_prefix()}{len(self.disks)}"
        os.mkdir(path, 0o700)
        self.disks.append(path)
        return path

    def _disk_prefix(self):
        """Of its disks' folders, and of no other's: other tests may run on this machine."""
        return "/var/tmp/" + ".".join(self.dir.split("/")[-2:]) + "."

    def drop(self, host):
        """A host that only one test needed: nothing may be left on it."""
        self._check_host(host)
        host.forget_images()
        host.stop()
        self.hosts.remove(host)
        self._check_ended(host)

    def vm(self, name="t", **more):
        return Vm(self, name, **more)

    def kvm_vm(self):
        """One that KVM runs: without paging, and with a pattern of its own (lab/mkguest)."""
        if not os.path.exists("/dev/kvm"):
            raise Skip("no /dev/kvm", kvm=True)
        image = os.path.join(self.dir, "kvm.img")
        shutil.copyfile(os.path.join(GUEST, "kvm.img"), image)
        vm = self.vm("kvm", memory="64M", accel="kvm", kernel=False, machine="pc",
                     args=["-drive", f"file={image},format=raw,if=ide"])
        vm.passes = re.compile(r"\.")
        vm.check_console = lambda: check("!" not in vm.read(), f"lost memory: {vm.text}")
        return vm

    def network(self):
        network = Network(network_name(os.getpid(), len(self.networks)))
        self.networks.append(network)
        return network

    def closing(self, thing):
        """Something of the current test with a close()."""
        self.closers.append(thing)
        return thing

    def close(self):
        while self.closers:
            self.closers.pop().close()

    def _vms_of(self, host):
        return [vm for vm in self.vms if vm.host is host]

    def _check_host(self, host, grace=5):
        vms = self._vms_of(host)
        deadline = time.monotonic() + grace * PATIENCE
        while True:
            problems = host.leftovers(vms)
            if not problems:
                break
            if time.monotonic() > deadline:
                raise Failure(f"left behind on {host.name}: " + "; ".join(problems))
            time.sleep(0.02)
        host.check_log()

    def check(self, grace=5):
        """After a test: VMs are well, and nothing is left of what it did."""
        for host in self.hosts:
            self._check_host(host, grace)
            check(host.daemon is None or host.daemon.poll() is None,
                  f"godwitd {host.name} has died: {read_text(host.log)[-3000:]}")
        for vm in self.vms:
            if vm.host and not vm.paused:
                vm.lives(1)
            if vm.host:
                vm.check_console()

    def _check_ended(self, host):
        found = processes(host.root)
        check(not found, f"after the end of {host.name}: {[cmdline(pid) for pid in found]}")
        check(not host.mounts(), f"after the end of {host.name}: mounts {host.mounts()}")
        left = sorted(os.listdir(host.run))
        # An older release has no folder for what it holds of VMs elsewhere.
        check(set(left) - {"log", "held"} == {"image", "lock", "settled", "vm"},
              f"after the end of {host.name}: {left}")
        held = os.path.join(host.run, "held")
        check(not os.path.isdir(held) or not os.listdir(held), f"held by {host.name}")
        images = os.listdir(os.path.join(host.run, "image"))
        check(set(images) <= {".lock", ".demotion"}, f"after the end of {host.name}: images {images}")
        host.check_log()

    def finish(self):
        """An orderly end of everything; whatever remains then is a failure."""
        for vm in list(self.vms):
            if vm.host:
                vm.stop()
        for host in self.hosts:
            self._check_host(host)
            host.forget_images()
            host.stop()
        for host in self.hosts:
            self._check_ended(host)
        for network in self.networks:
            network.down()
        check(not processes(self.dir), f"still running: {processes(self.dir)}")
        for path in self.disks:
            check(set(os.listdir(path)) <= {"run"}, f"left in {path}: {os.listdir(path)}")
            shutil.rmtree(path)
        self.hosts, self.networks, self.disks = [], [], []
        shutil.rmtree(self.dir)

    def destroy(self, keep):
        """After a failure: end everything by force; keep the logs in @keep."""
        for closer in self.closers:
            try:
                closer.close()
            except OSError:
                pass
        self._keep(keep)
        for host in self.hosts:
            if host.daemon:
                host.daemon.kill()
                host.daemon.wait()
        for _ in range(100):
            pids = processes(self.dir)
            if not pids:
                break
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)
        for host in self.hosts:
            for path in host.mounts():
                libc.umount2(path.encode(), 2)  # MNT_DETACH
        for network in self.networks:
            try:
                network.down()
            except subprocess.CalledProcessError:
                pass
        for path in glob.glob(f"{self._disk_prefix()}*"):
            shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(self.dir, ignore_errors=True)

    def _keep(self, keep):
        """Save what tells about a failure: logs, records, consoles."""
        os.makedirs(keep, exist_ok=True)
        for root, folders, files in os.walk(self.dir):
            folders[:] = [f for f in folders if f not in ("ram", "ram-small")]
            for name in files:
                if not name.endswith((".log", ".json")) and name != "qemu.pid":
                    continue
                path = os.path.join(root, name)
                target = os.path.relpath(path, self.dir).replace("/", "_")
                try:
                    shutil.copyfile(path, os.path.join(keep, target))
                except OSError:
                    pass


def clear_away(folder, pid, keep):
    """End by force what a test process @pid left that died itself."""
    lab = Lab(folder)
    for name in os.listdir(folder):
        if os.path.isdir(os.path.join(folder, name)):
            lab.hosts.append(Host(lab, name, ""))
    for number in range(3):
        network = Network(network_name(pid, number), up=False)
        if os.path.exists(f"/run/netns/{network.namespace('a')}"):
            lab.networks.append(network)
    lab.destroy(keep)
