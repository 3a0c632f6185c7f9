# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that runs at its destination before its memory has come, from a source of the test's.

The source is false, its guest is not: so the test decides what travels when, on which
connection, and when a connection is lost.
"""

import json
import os
import re
import socket
import struct
import threading
import time

from godwit_lab import Failure, check, kill, read_text, wait_for
from godwit_runner import Group
from godwit_wire import FalseSource, Frame, NAMES, open_frame, receive_frame

PAGE = 4096
CHUNK = 256
RAW, ZERO = 7, 1
OUTCOMES = ("unknown", "aborted", "running", "lost", "paging", "ended")


class PagingSource(FalseSource):
    """The memory and the device state of a stopped guest at @host, in post-copy to @to."""

    def __init__(self, host, vm, to, connections=3):
        record = json.loads(read_text(os.path.join(host.dir(vm.name), "vm.json")))
        super().__init__(to.address, streams=1, definition=record["definition"],
                         features=["commit-run", "postcopy"], stages=["zero", "raw"],
                         postcopy=connections)
        memory = record["definition"]["memory"]
        check(len(memory) == 1, f"memory in {len(memory)} pieces")
        self.nr = memory[0]["size"] // PAGE
        self.ram = self._open_ram(host, vm)
        self.vm, self.qmp = vm, vm.qmp()
        self.connections = connections
        self.paging, self.threads = [], []
        self.requested, self.sent = [], set()
        self.pushed, self.placed = 0, 0   # bytes on connection 1
        self.left = None          # what the destination says is missing
        self.known = None
        self.complete = threading.Event()
        self.listed = threading.Event()
        self.lock = threading.Lock()
        self.answer = True        # requests
        self.withheld = set()     # pages that are not sent
        self.failed = []

    @staticmethod
    def _open_ram(host, vm):
        pid = host.qemu(vm.name)
        for line in read_text(f"/proc/{pid}/maps").splitlines():
            if "/ram" in line and vm.name in line and line.endswith("godwit-ram"):
                start, _, end = line.split()[0].partition("-")
                return os.open(f"/proc/{pid}/map_files/{start}-{end}", os.O_RDONLY)
        raise Failure("no RAM file is mapped")

    def expect(self, name):
        while True:
            frame = receive_frame(self.control)
            if isinstance(frame, Frame) and frame.name == "WAIT":
                continue
            check(isinstance(frame, Frame) and frame.name == name,
                  f"{frame} {frame and bytes(frame.payload)} where {name} was due")
            return frame

    def connect_paging(self):
        self.hang_up()
        self.listed.clear()
        self.pushed = self.placed = 0
        paging = []
        for i in range(self.connections):
            sock = self._connect("PAGING", i)
            answer = receive_frame(sock)
            if not isinstance(answer, Frame) or answer.name != "ACCEPT":
                for s in paging + [sock]:
                    s.close()
                raise ConnectionError(f"connection {i}: {answer}")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            paging.append(sock)
        self.paging = paging
        for i in range(self.connections):
            thread = threading.Thread(target=self._hear, args=(i, paging[i]), daemon=True)
            self.threads.append(thread)
            thread.start()

    def reconnect(self):
        """As a source does: until the destination takes it."""
        def once():
            try:
                self.connect_paging()
            except (OSError, ConnectionError):
                return False
            return self.listed.wait(2)
        wait_for("the destination to page again", once, 30, 0.1)

    def hang_up(self):
        for sock in self.paging:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
        self.paging = []

    def _hear(self, i, sock):
        missing = set()
        while True:
            try:
                frame = receive_frame(sock)
            except OSError:
                return
            if not isinstance(frame, Frame):
                return
            if frame.name == "MISSING":
                for first, count in self._runs(frame):
                    missing.update(range(first, first + count))
            elif frame.name == "MISSING_END":
                self.left, self.known = missing, frame.arg
                self.listed.set()
            elif frame.name == "REQUEST":
                runs = self._runs(frame)
                self.requested += runs
                if self.answer:
                    for first, count in runs:
                        self.send_pages(first, count, 0)
            elif frame.name == "FAULTS" and not i:
                check(len(frame.payload) % 8 == 0, f"{frame}")
            elif frame.name == "PLACED" and i:
                if i == 1:
                    self.placed = frame.arg
            elif frame.name == "COMPLETE" and not i:
                self.complete.set()
            else:
                self.failed.append(f"{frame} on connection {i}")

    @staticmethod
    def _runs(frame):
        return [struct.unpack_from("<QI", frame.payload, at)
                for at in range(0, len(frame.payload), 12)]

    def send_pages(self, first, count, index):
        """Pages in a row, of one chunk or several, but those that are withheld."""
        end = first + count
        for page in range(first, end + 1):
            if page < end and page not in self.withheld:
                continue
            if page > first and not self._send_pages(first, page - first, index):
                return False
            first = page + 1
        return True

    def _send_pages(self, first, count, index):
        while count:
            part = min(count, CHUNK - first % CHUNK)
            data = os.pread(self.ram, part * PAGE, first * PAGE)
            records = b""
            for k in range(part):
                page = data[k * PAGE:(k + 1) * PAGE]
                at = (first + k) % CHUNK
                zero = not page.strip(b"\0")
                records += struct.pack("<BBBBI", ZERO if zero else RAW, at, 0, 0,
                                       0 if zero else PAGE) + (b"" if zero else page)
            try:
                frame = Frame("PAGES", first // CHUNK, records).bytes()
                with self.lock:
                    self.paging[index].sendall(frame)
                    self.pushed += len(frame) if index == 1 else 0
            except (OSError, IndexError):
                return False
            self.sent.update(range(first, first + part))
            first, count = first + part, count - part
        return True

    def push(self, pages=None, index=1):
        for chunk in range(self.nr // CHUNK):
            if pages is not None and chunk * CHUNK >= pages:
                break
            if not self.send_pages(chunk * CHUNK, CHUNK, index):
                return False
        return True

    def stop_guest(self):
        """Its device state."""
        path = os.path.join(self.vm.lab.dir, "device")
        self.qmp.call("stop")
        self.qmp.call("migrate-set-capabilities",
                      capabilities=[{"capability": "x-ignore-shared", "state": True}])
        self.qmp.call("migrate", uri=f"exec:cat > {path}")
        wait_for("the device state", lambda: self.qmp.call("query-migrate").get("status") ==
                 "completed")
        with open(path, "rb") as f:
            return f.read()

    def begin(self):
        """Up to READY, streams and paging connections."""
        self.start()
        self.connect_paging()

    def settle(self, kind="SETTLE"):
        """What the destination says of the guest."""
        sock = self._connect(kind, 0)
        frame = receive_frame(sock)
        sock.close()
        check(frame.name == "SETTLED", f"{frame}")
        return OUTCOMES[frame.arg]

    def missing(self, runs):
        self.say("MISSING", 0, b"".join(struct.pack("<QI", *run) for run in runs))
        self.say("MISSING_END", sum(count for _, count in runs))

    def switch_over(self):
        """All of it is missing, and the guest runs there."""
        state = self.stop_guest()
        self.missing([(0, self.nr)])
        check(self.listed.wait(10), "what is missing was not told")
        check(self.left == set(range(self.nr)) and self.known == 1, "something else is missing")
        for at in range(0, len(state), 1 << 20):
            self.say("DEVICE", 0, state[at:at + (1 << 20)])
        self.say("DEVICE_END")
        self.expect("LOADED")
        self.say("COMMIT", 1)
        self.expect("RUNNING")

    def end(self):
        self.hang_up()
        self.close()
        self.qmp.close()
        os.close(self.ram)
        check(not self.failed, f"{self.failed}")


class Paging(Group):
    """A guest whose source is the test; it goes back there as any other."""

    timeout = 120
    weight = 60

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")

    def moved(self, name):
        """A guest that runs at b, and all of whose memory is missing."""
        vm = self.lab.vm(name, memory="128M").boot(self.a)
        source = PagingSource(self.a, vm, self.b)
        source.begin()
        source.switch_over()
        vm.settle(self.b)
        return vm, source

    def whole(self, vm, source):
        """Nothing is missing any more."""
        check(source.complete.wait(20), f"not complete: {self.b.status(vm.name)}")
        source.end()
        wait_for("the keeper to be done", lambda: not self.b.workers(), 10)
        self.a.godwit("stop", vm.name).ok()
        vm.lives()
        check(self.b.state(vm.name) == "running", self.b.state(vm.name))
        check(not os.path.exists(os.path.join(self.b.dir(vm.name), "missing")), "the table stays")

    def test_on_demand_and_pushed(self):
        vm, source = self.moved("p1")
        # What it needs is asked for, and that alone.
        vm.lives(1)
        status = self.b.status(vm.name)
        check(status["status"] == "postcopy-active", status)
        check(status["ram"]["remaining"] > 0 and status["ram"]["postcopy-requests"] > 0, status)
        check(self.b.state(vm.name) == "postcopy", self.b.state(vm.name))
        check(len(source.requested) == len(set(source.requested)), "asked for twice")
        self.b.godwit("migrate", vm.name, self.a.address).failed("still to come")
        self.b.godwit("cancel", vm.name).failed("too late")
        source.push()
        self.whole(vm, source)
        check(len(source.sent) == source.nr, "not all was sent")
        vm.move(self.a)

    def test_link_is_lost(self):
        vm, source = self.moved("p2")
        for _ in range(3):
            source.push(source.nr // 4)
            wait_for("what was pushed to be placed", lambda: source.placed == source.pushed)
            source.hang_up()
            wait_for("paused", lambda: self.b.status(vm.name)["status"] == "postcopy-paused")
            source.reconnect()
            check(source.known == 1, "it does not know what it holds")
            check(min(source.left) >= source.nr // 4, "what was placed is missing again")
            vm.lives(1)
        source.push()
        self.whole(vm, source)

    def test_pager_is_killed(self):
        vm, source = self.moved("p3")
        for _ in range(3):
            source.push(source.nr // 4)
            pager = self.b.worker()
            kill(pager)
            begin = time.monotonic()
            wait_for("another pager", lambda: self.b.workers() not in ([], [pager]))
            check(time.monotonic() - begin < 1, "the guest waited for a pager")
            source.reconnect()
            check(source.known == 0, "it cannot know what it holds")
            vm.lives(1)
        source.push()
        self.whole(vm, source)

    def test_daemon_is_restarted(self):
        vm, source = self.moved("p4")
        self.b.kill()
        vm.lives(1)   # its pager lives on
        self.b.start()
        source.reconnect()
        vm.lives(1)
        source.push()
        self.whole(vm, source)

    def test_its_source_asks(self):
        vm, source = self.moved("p6")
        pager = self.b.worker()
        for kind in ("SETTLE", "FORBID"):
            check(source.settle(kind) == "paging", source.settle(kind))
        check(self.b.worker() == pager, "its pager was killed for a question")
        vm.lives(1)
        source.push()
        self.whole(vm, source)
        check(source.settle() == "running", source.settle())

    def test_qemu_ends(self):
        vm, source = self.moved("p7")
        source.answer = False
        kill(vm.pid())
        vm.gone()
        wait_for("it to be buried", lambda: self.b.state("p7") is None)
        check(source.settle() == "ended", source.settle())
        source.end()
        self.a.godwit("stop", "p7").ok()

    def test_source_is_lost_before_commit(self):
        vm = self.lab.vm("p8", memory="128M").boot(self.a)
        source = PagingSource(self.a, vm, self.b)
        source.begin()
        self.untouched(vm.name)
        source.missing([(0, 100), (5000, source.nr - 5000)])
        check(source.listed.wait(10), "what is missing was not told")
        check(source.left == {*range(100), *range(5000, source.nr)}, "something else is missing")
        source.hang_up()
        source.expect("ERROR")
        wait_for("it to be removed", lambda: self.b.state("p8") is None)
        check(source.settle() == "aborted", source.settle())
        source.end()
        vm.lives()
        vm.stop()

    def untouched(self, name):
        """F6: its QEMU has not touched its memory, or those pages would never fault."""
        text = read_text(f"/proc/{self.b.qemu(name)}/smaps")
        mapped = [int(kib) for kib in re.findall(r"godwit-ram\n(?:.*\n)*?Rss: +(\d+) kB", text)]
        check(mapped and not any(mapped), f"of the guest's memory QEMU has mapped {mapped} KiB")

    def test_nothing_is_left_alive(self):
        vm, source = self.moved("p9")
        pager = self.b.worker()
        self.b.kill()
        kill(pager)
        source.hang_up()
        time.sleep(0.2)   # it needs a page that is here, or is not: it waits for either
        self.b.start()
        source.reconnect()
        check(source.known == 0, "it cannot know what it holds")
        vm.lives(1)
        source.push()
        self.whole(vm, source)

    def test_stopped_meanwhile(self):
        vm, source = self.moved("p5")
        source.answer = False
        vm.stop()
        source.end()
        check(self.b.state("p5") is None, "it is still there")
        self.a.godwit("stop", "p5").ok()


check(NAMES and open_frame, "of the wire")
