# SPDX-License-Identifier: GPL-2.0-or-later
"""Godwit's protocol from the outside: frames, a proxy in between, false peers.

    Frame   one frame (src/wire/frame.h)
    Proxy   stands between source and destination, and at a chosen message lets
            the test act: kill, cut, change, drop, hold
    Server  a false destination

Message numbers are read from src/wire/messages.h, so that they are said once.
"""

import ctypes
import json
import os
import re
import socket
import struct
import threading

from godwit_lab import MIB, Failure, REPO, check, read_text, socket_in, wait_for

HEADER = 32
MAGIC = b"GWF1"
ID_LEN = 16

_header = read_text(os.path.join(REPO, "src", "wire", "messages.h"))


def _enum(name, prefix):
    body = re.search(r"enum " + name + r" \{(.*?)\n\};", _header, re.S).group(1)
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
    names, value = {}, -1
    for item in body.split(","):
        if not item.strip():
            continue
        word, _, number = item.strip().partition("=")
        value = int(number, 0) if number else value + 1
        names[word.strip()[len(prefix):]] = value
    return names


MESSAGES = _enum("gw_message", "GW_MSG_")
NAMES = {number: name for name, number in MESSAGES.items()}
KINDS = _enum("gw_open_kind", "GW_OPEN_")
VERSION = int(re.search(r"#define GW_VERSION\s+(\d+)", _header).group(1))
VERSION_MIN = int(re.search(r"#define GW_VERSION_MIN\s+(\d+)", _header).group(1))

_xxhash = ctypes.CDLL("libxxhash.so.0")  # godwitd needs it, so it is here
_xxhash.XXH3_64bits.restype = ctypes.c_uint64
_xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]


def checksum(data):
    return _xxhash.XXH3_64bits(bytes(data), len(data))


class Frame:
    """One frame; change its fields and seal() it to send another."""

    def __init__(self, name, arg=0, payload=b""):
        self.name, self.arg, self.payload = name, arg, bytearray(payload)
        self.head = bytearray(HEADER)
        self.sender = self.connection = None
        self.seal()

    def seal(self, length=None):
        """Make the header fit the fields again; @length: but with this wrong length."""
        number = MESSAGES.get(self.name, self.name)
        self.head[:24] = struct.pack("<4sHHIIQ", MAGIC, number, 0,
                                     len(self.payload) if length is None else length, 0,
                                     self.arg)
        self.head[24:] = struct.pack("<Q", checksum(bytes(self.head[:24]) + self.payload))
        return self

    def bytes(self):
        return bytes(self.head) + bytes(self.payload)

    def __str__(self):
        return f"{self.sender}:{self.name} {self.arg} ({len(self.payload)} bytes)"


def open_frame(kind, migration, stream=0, versions=(VERSION_MIN, VERSION)):
    return Frame("OPEN", 0, struct.pack("<HHHHII16s", *versions, KINDS.get(kind, kind), 0,
                                        stream, 0, migration))


def receive_exactly(sock, size):
    """@size bytes; fewer at the end of the connection, however it ended."""
    data = bytearray()
    try:
        while len(data) < size:
            part = sock.recv(min(size - len(data), 1 << 20))
            if not part:
                break
            data += part
    except ConnectionResetError:
        pass
    return data


def receive_frame(sock):
    """The next frame; None at the end; bytes if it is something else."""
    head = receive_exactly(sock, HEADER)
    if not head:
        return None
    if len(head) < HEADER or head[:4] != MAGIC:
        return bytes(head)
    _, number, _, length, _, arg = struct.unpack("<4sHHIIQ", head[:24])
    frame = Frame.__new__(Frame)
    frame.name, frame.arg, frame.head = NAMES.get(number, number), arg, head
    frame.payload = receive_exactly(sock, length)
    frame.sender = frame.connection = None
    return frame


def call(address, data, timeout=120):
    """Say @data to a godwitd as a stranger would; all it answers until it hangs up."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as sock:
        try:
            sock.sendall(data)
        except (ConnectionResetError, BrokenPipeError):
            pass
        return bytes(receive_exactly(sock, 1 << 20))


# What an action may answer; None lets the frame pass, bytes go in its place.
DROP = "drop"      # it never arrives
HOLD = "hold"      # it waits until the proxy is closed, or release()d
HANG_UP = "hang up"  # all connections end


class DeadEnd(Exception):
    """A side takes nothing any more."""


def send_on(sock, data):
    try:
        sock.sendall(data)
    except OSError as e:
        raise DeadEnd from e


class Connection:
    """One connection through the proxy."""

    def __init__(self, left, right):
        self.left, self.right = left, right
        self.kind, self.stream = None, 0
        self.carried = {"source": threading.Event(), "destination": threading.Event()}

    def end(self):
        for sock in (self.left, self.right):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Proxy:
    """
    Between a source, which connects to @address, and the destination @target.

    at() registers what to do at a message; actions run in the thread that
    carries the frame, so that the frame waits for them. The end of one side is
    passed on to the other.
    """

    def __init__(self, target, address="127.0.0.1:0", namespace=None, target_namespace=None):
        self.target, self.target_namespace = target, target_namespace
        self.rules, self.errors, self.connections = [], [], []
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.closed = False
        self.pass_on_ends = True  # whether one side's end is told to the other
        self.listener = socket_in(namespace)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        host, _, port = address.rpartition(":")
        self.listener.bind((host, int(port)))
        self.listener.listen(80)
        self.address = "%s:%d" % self.listener.getsockname()
        self.threads = []
        self._thread(self._accept)

    def _thread(self, fn, *args):
        thread = threading.Thread(target=fn, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def at(self, name, action=None, nth=1, where=None):
        """
        At the @nth frame of that name (for which where(frame)), do action(frame),
        or what the constant @action says. Returns the rule; rule.met is an event.
        """
        rule = Rule(name, action, nth, where)
        self.rules.append(rule)
        return rule

    def reached(self, rule, timeout=30):
        """Wait until a rule's frame has come and its action is done."""
        wait_for(f"the {rule.name} frame", lambda: rule.met.is_set() or self.errors, timeout)
        self.check()

    def release(self):
        """Let all held frames go on, now and later."""
        self.released.set()

    def cut(self):
        """End the connections that there are; new ones are let through."""
        for connection in list(self.connections):
            connection.end()

    def check(self):
        if self.errors:
            raise Failure(f"in the proxy: {self.errors[0]!r}") from self.errors[0]

    def close(self):
        self.closed = True
        self.released.set()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for connection in self.connections:
            connection.end()
        for thread in self.threads:
            thread.join(10)
        for connection in self.connections:
            connection.left.close()
            connection.right.close()

    def _accept(self):
        host, _, port = self.target.rpartition(":")
        while not self.closed:
            try:
                left, _ = self.listener.accept()
            except OSError:
                return
            right = socket_in(self.target_namespace)
            try:
                right.connect((host, int(port)))
            except OSError:
                left.close()
                right.close()
                continue
            for sock in (left, right):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(left, right)
            self.connections.append(connection)
            self._thread(self._carry, connection, "source", left, right)
            self._thread(self._carry, connection, "destination", right, left)

    def _carry(self, connection, sender, come, go):
        try:
            self._carry_frames(connection, sender, come, go)
        except DeadEnd:
            # What it said before it died may still be on its way to the other side.
            other = "destination" if sender == "source" else "source"
            connection.carried[other].wait(30)
            if self.pass_on_ends:
                connection.end()
        except OSError:
            # A dead side: the other one shall hear of it.
            if self.pass_on_ends:
                connection.end()
        except Exception as e:  # pylint: disable=broad-except
            self.errors.append(e)
            connection.end()
        finally:
            connection.carried[sender].set()

    def _carry_frames(self, connection, sender, come, go):
        while True:
            frame = receive_frame(come)
            if frame is None:
                if self.pass_on_ends:
                    go.shutdown(socket.SHUT_WR)
                return
            if isinstance(frame, bytes):
                send_on(go, frame)
                continue
            frame.sender, frame.connection = sender, connection
            if frame.name == "OPEN" and len(frame.payload) == 32:
                kind, stream = struct.unpack_from("<HxxI", frame.payload, 4)
                connection.kind, connection.stream = kind, stream
            verdict = self._judge(frame)
            if verdict is None:
                send_on(go, frame.bytes())
            elif isinstance(verdict, bytes):
                send_on(go, verdict)

    def _judge(self, frame):
        verdict = None
        for rule in list(self.rules):
            with self.lock:
                matches = rule.matches(frame)
            if not matches:
                continue
            verdict = rule.action(frame) if callable(rule.action) else rule.action
            rule.frame = frame
            rule.met.set()
        if verdict == HOLD:
            self.released.wait()
            verdict = DROP if self.closed else None
        if verdict == HANG_UP:
            for connection in list(self.connections):
                connection.end()
        return verdict


class Rule:
    """See Proxy.at()."""

    def __init__(self, name, action, nth, where):
        self.name, self.action, self.nth, self.where = name, action, nth, where
        self.met = threading.Event()
        self.frame = None

    def matches(self, frame):
        if frame.name != self.name or self.where and not self.where(frame):
            return False
        self.nth -= 1
        return self.nth == 0


class FalseSource:
    """
    A source of the test's own, as far as a destination sees it. It begins a
    migration of a machine that is nothing but memory.
    """

    def __init__(self, address, streams=1, name="false", memory=4 * MIB, **changes):
        self.address = address
        self.id = os.urandom(ID_LEN)
        self.control = self._connect("MIGRATE", 0)
        definition = {"name": name, "cwd": "/", "machine": "none", "managed": True,
                      "discards": False, "memory": [{"id": "godwit-ram", "size": memory}],
                      "argv": ["qemu-system-x86_64", "-nodefaults", "-display", "none",
                               "-machine", "none"]}
        definition.update(changes.pop("definition", {}))
        self.define = {"definition": definition, "run": True, "streams": streams, "resident": 0}
        self.define.update(changes)
        self.streams = []

    def _connect(self, kind, stream):
        host, _, port = self.address.rpartition(":")
        sock = socket.create_connection((host, int(port)), timeout=120)
        sock.sendall(open_frame(kind, self.id, stream).bytes())
        return sock

    def start(self):
        """Up to READY, with all streams joined."""
        self.offer()
        self.expect("READY")
        for i in range(self.define["streams"]):
            self.join(i)
        return self

    def offer(self, raw=None):
        """Send DEFINE, or @raw as its payload."""
        self.expect("ACCEPT")
        self.say("DEFINE", payload=json.dumps(self.define).encode() if raw is None else raw)

    def join(self, index):
        stream = self._connect("STREAM", index)
        self.streams.append(stream)
        check(receive_frame(stream).name == "ACCEPT", "the stream was not accepted")

    def say(self, name, arg=0, payload=b"", stream=None):
        sock = self.control if stream is None else self.streams[stream]
        sock.sendall(Frame(name, arg, payload).bytes())

    def expect(self, name):
        """The next message on the control connection; WAIT only says that it takes a while."""
        frame = receive_frame(self.control)
        while name != "WAIT" and isinstance(frame, Frame) and frame.name == "WAIT":
            frame = receive_frame(self.control)
        check(isinstance(frame, Frame) and frame.name == name,
              f"{frame} {frame and bytes(frame.payload)} where {name} was due")
        return frame

    def refused(self, *texts):
        """The destination ends it, and says why."""
        text = self.expect("ERROR").payload.decode()
        for part in texts:
            check(part in text, f"'{part}' is missing in '{text}'")
        check(receive_frame(self.control) is None, "not closed after ERROR")
        self.close()

    def close(self):
        for sock in [self.control] + self.streams:
            sock.close()


class Server:
    """A false destination: serve(socket) is called for each connection, in a thread."""

    def __init__(self, serve):
        self.serve = serve
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "%s:%d" % self.listener.getsockname()
        self.sockets, self.threads = [], []
        self.closed = False
        self._thread(self._accept)

    def _thread(self, fn, *args):
        thread = threading.Thread(target=fn, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self):
        while not self.closed:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.sockets.append(sock)
            self._thread(self._serve, sock)

    def _serve(self, sock):
        try:
            self.serve(sock)
            sock.close()
        except OSError:
            pass

    def close(self):
        self.closed = True
        for sock in [self.listener] + self.sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
        for thread in self.threads:
            thread.join(10)


def answers(*frames):
    """For Server: a destination that answers one frame with one of @frames, in turn."""
    def serve(sock):
        for frame in frames:
            if receive_frame(sock) is None:
                return
            sock.sendall(frame.bytes() if isinstance(frame, Frame) else frame)
        receive_exactly(sock, 1 << 20)
    return serve


check(_xxhash.XXH3_64bits(b"", 0) == 0x2d06800538d394c2, "libxxhash computes another XXH3")
