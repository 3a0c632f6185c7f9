# SPDX-License-Identifier: GPL-2.0-or-later
"""
Destinations that cannot or will not, peers that are none, frames that lie.

Each ends with a reason, the daemon living on, the guest running where it ran.
"""

import os
import random
import re
import socket
import struct
import threading

from godwit_lab import MIB, check, wait_for
from godwit_runner import Group
from godwit_wire import (HEADER, MESSAGES, VERSION, FalseSource, Frame, Proxy, Server,
                         answers, call, open_frame, receive_exactly, receive_frame)


class Guest(Group):
    """A guest on a, which stays there."""

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")
        self.vm = self.make_vm().boot(self.a)

    def make_vm(self):
        return self.lab.vm()

    def fails(self, address, *texts):
        """It is not moved to @address, for a reason with all of @texts; it runs on."""
        result = self.vm.migrate(address).finish().failed(*texts)
        check(self.a.status("t")["status"] == "failed", "status")
        self.vm.lives()
        wait_for("the guest to be listed as running", lambda: self.a.state("t") == "running")
        return result


class Destination(Guest):
    """Real destinations that lack something."""

    weight = 20

    def make_vm(self):
        self.bin = os.path.join(self.lab.dir, "bin")
        os.mkdir(self.bin)
        self.qemu = os.path.join(self.bin, "qemu-system-x86_64")
        os.symlink("/usr/bin/qemu-system-x86_64", self.qemu)
        self.disk = os.path.join(self.lab.dir, "disk.img")
        with open(self.disk, "wb") as f:
            f.truncate(MIB)
        return self.lab.vm(qemu=self.qemu, args=["-drive", f"file={self.disk},format=raw,"
                                                           "if=virtio,cache=writeback"])

    def test_memory(self):
        poor = self.lab.host("poor", "--memory-limit", "100M")
        self.fails(poor.address, "destination: host 'poor' has", "of memory for another VM",
                   "'t' needs", "choose another host")
        self.lab.drop(poor)

    def test_memory_goes_meanwhile(self):
        """There is enough at first, and then somebody else takes it."""
        tight = self.lab.host("tight", "--memory-limit", "300M")
        other = os.path.join(tight.run, "ram", "other")

        def take(_frame):
            with open(other, "wb") as f:
                for _ in range(280):
                    f.write(b"x" * MIB)
        proxy = self.lab.closing(Proxy(tight.address))
        proxy.at("READY", take)
        self.fails(proxy.address, "destination", "full", "free memory")
        wait_for("it to forget the guest", lambda: not tight.list(), 5)
        os.unlink(other)
        self.lab.drop(tight)

    def test_qemu(self):
        os.rename(self.qemu, self.qemu + ".away")
        self.fails(self.b.address, f"host 'b': cannot run {self.qemu}", "No such file",
                   "install QEMU")
        os.rename(self.qemu + ".away", self.qemu)

    def test_machine_version(self):
        """An older QEMU there: as the VM's would be a machine of the future."""
        os.rename(self.qemu, self.qemu + ".away")
        with open(self.qemu, "w", encoding="ascii") as f:
            f.write("#!/bin/bash\n"
                    "exec -a qemu-system-x86_64 /usr/bin/qemu-system-x86_64 "
                    "\"${@/#type=pc-q35-*/type=pc-q35-99.9}\"\n")
        os.chmod(self.qemu, 0o755)
        self.fails(self.b.address, "QEMU does not start on host 'b'", "unsupported machine type",
                   "machine version", "must exist there too")
        os.rename(self.qemu + ".away", self.qemu)

    def test_disk(self):
        os.rename(self.disk, self.disk + ".away")
        result = self.fails(self.b.address, "QEMU does not start on host 'b'",
                            f"Could not open '{self.disk}'", "must exist there too",
                            "the guest runs on here")
        named = re.search(r"its log is b:([^\s;]+?)\.?\s", result.err)
        check(named, f"no log is named: {result}")
        with open(named[1], encoding="utf-8") as f:
            check("Could not open" in f.read(), "the log that was named does not say why")
        os.rename(self.disk + ".away", self.disk)

    def test_name_taken(self):
        self.b.godwit("run", "t", "--memory", "16M", "--", "qemu-system-x86_64", "-nodefaults",
                      "-display", "none").ok()
        self.fails(self.b.address, "host 'b' already has a VM 't'")
        check(self.b.state("t") == "running", "the other VM was harmed")
        self.b.godwit("stop", "t").ok()

    def test_itself(self):
        self.fails(self.a.address, "the address is that of the host that it is to leave")

    def test_nobody(self):
        self.fails("127.0.0.1:1", "cannot reach 127.0.0.1:1", "Connection refused",
                   "is godwitd running there?")

    def test_no_address(self):
        for address in ("nonsense", "127.0.0.1", "127.0.0.1:", "127.0.0.1:port", ""):
            result = self.vm.migrate(address).finish()
            check(result.status == 2 and "HOST:PORT" in result.err, str(result))
        self.fails("256.256.256.256:1", "'256.256.256.256:1' is not an address")
        self.vm.lives()

    def test_moves_all_the_same(self):
        """After all that: to where nothing is missing."""
        self.vm.move(self.b)
        self.vm.move(self.a)


class FalseDestination(Guest):
    """What listens there is no godwitd, or a mad one."""

    weight = 20

    def serves(self, serve, *texts):
        server = self.lab.closing(Server(serve))
        return self.fails(server.address, *texts)

    def test_http(self):
        def serve(sock):
            sock.recv(1000)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nGo away\r\n")
            sock.shutdown(socket.SHUT_WR)
            receive_exactly(sock, 1 << 20)
        self.serves(serve, "does not speak Godwit's protocol")

    def test_ssh(self):
        self.serves(lambda sock: sock.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"),
                    "does not speak Godwit's protocol")

    def test_closes(self):
        self.serves(lambda sock: sock.close(), "closed the connection")

    def test_silent(self):
        """It accepts, and says nothing, for ever."""
        self.serves(lambda sock: receive_exactly(sock, 1 << 20), "did not answer in time")

    def test_wrong_version(self):
        self.serves(answers(Frame("ACCEPT", VERSION + 7)), f"version {VERSION + 7}, which was not offered")

    def test_wrong_answer(self):
        self.serves(answers(Frame("READY")), "READY where ACCEPT was due")

    def test_refusal(self):
        """Its reason reaches the user; whatever is in it does not harm the terminal."""
        self.serves(answers(Frame("ERROR", 0, "not today, my göod friend".encode())),
                    "not today, my göod friend")
        self.serves(answers(Frame("ACCEPT", VERSION), Frame("ERROR", 0, b"too late for today")),
                    "too late for today")
        result = self.serves(answers(Frame("ERROR", 0, b"\xff\xfe\x1b[2J\x07 evil text")),
                             "evil text")
        check("\x1b" not in result.err and "\x07" not in result.err,
              f"control characters: {result.err!r}")

    def test_damaged(self):
        frame = Frame("ACCEPT", VERSION)
        frame.head[16] ^= 4
        self.serves(answers(frame), "ACCEPT frame arrived damaged")

    def test_unknown_frame(self):
        self.serves(answers(Frame(999)), "unknown frame (type 999)")

    def test_too_long(self):
        frame = Frame("ERROR").seal(length=0xffffffff)
        self.serves(answers(frame), "ERROR frame of 4294967295 bytes")

    def test_cut_short(self):
        def serve(sock):
            receive_frame(sock)
            sock.sendall(Frame("ERROR", 0, b"x" * 100).bytes()[:50])
            sock.shutdown(socket.SHUT_WR)
            receive_exactly(sock, 1 << 20)
        self.serves(serve, "closed the connection")

    def test_ready_without_streams(self):
        """It accepts the migration, and refuses its streams."""
        def serve(sock):
            frame = receive_frame(sock)
            if struct.unpack_from("<H", frame.payload, 4)[0] == 1:
                answers_from_there(sock)
        answers_from_there = answers_after_open(Frame("ACCEPT", VERSION), Frame("READY", 0, b"{}"))
        self.serves(serve, "closed the connection")


def answers_after_open(first, *frames):
    """answers(), when OPEN has been read already."""
    rest = answers(*frames)

    def serve(sock):
        sock.sendall(first.bytes())
        rest(sock)
    return serve


class Listener(Guest):
    """Strangers at godwitd's door, while a guest lives there and others come and go."""

    weight = 15

    def setup(self):
        super().setup()
        # This one never says who it is: the last test looks how it fared.
        host, _, port = self.a.address.rpartition(":")
        self.mute = socket.create_connection((host, int(port)))
        self.mute.sendall(b"GWF1")

    def says(self, data, *texts):
        """A connection that says @data is ended with an ERROR that has all of @texts."""
        answer = call(self.a.address, data)
        check(answer[:4] == b"GWF1", f"answer {answer[:100]!r} to {data[:40]!r}")
        number, length = struct.unpack_from("<HxxI", answer, 4)
        check(number == MESSAGES["ERROR"] and length == len(answer) - HEADER,
              f"answer {answer[:100]!r}")
        for text in texts:
            check(text in answer.decode(errors="replace"), f"'{text}' is missing in {answer!r}")

    def test_other_protocols(self):
        for data in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x00" * 32, b"\xff" * 64,
                     b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x5a" * 50):
            self.says(data, "does not speak Godwit's protocol")

    def test_garbage(self):
        """Whether the answer arrives depends on how much of it was read; all are hung up on."""
        rng = random.Random(1)
        for size in [HEADER, 64, 65, 1000, 100000, 10000000] + \
                    [rng.randrange(HEADER, 300) for _ in range(100)]:
            call(self.a.address, rng.randbytes(size), 5)

    def test_mutations(self):
        """Every bit of a good OPEN flipped: refused, or at least survived."""
        good = open_frame("SETTLE", bytes(16)).bytes()
        check(call(self.a.address, good)[4] == MESSAGES["SETTLED"], "a good one is answered")
        for bit in range(0, len(good) * 8, 3):
            data = bytearray(good)
            data[bit // 8] ^= 1 << bit % 8
            answer = call(self.a.address, bytes(data), 1) if bit // 32 != 2 else b"...."
            check(answer[4:5] != bytes([MESSAGES["SETTLED"]]), f"bit {bit} is not checked")

    def test_versions(self):
        for low, high in ((VERSION + 1, VERSION + 1), (VERSION + 5, VERSION + 9)):
            self.says(open_frame("MIGRATE", bytes(16), versions=(low, high)).bytes(),
                      f"the peer speaks protocol versions {low} to {high}", "this host",
                      "install neighbouring releases")
        for low, high in ((0, 0), (0, 1), (3, 2)):
            self.says(open_frame("MIGRATE", bytes(16), versions=(low, high)).bytes(),
                      f"OPEN with versions {low} to {high}")
        # A newer peer that still speaks ours is welcome.
        answer = call(self.a.address, open_frame("SETTLE", bytes(16),
                                                 versions=(VERSION, VERSION + 1)).bytes())
        check(answer[4] == MESSAGES["SETTLED"], f"answer {answer!r}")

    def test_wrong_beginnings(self):
        for name in MESSAGES:
            if name in ("OPEN", "COUNT"):
                continue
            self.says(Frame(name).bytes() + b" " * 32, f"begins with {name}")
        self.says(Frame("PAGES").seal(length=0x7fffffff).bytes(), "2147483647 bytes")
        self.says(open_frame(99, bytes(16)).bytes(), "unknown kind 99")

    def test_strangers(self):
        """Streams and questions about migrations that nobody knows."""
        self.says(open_frame("STREAM", os.urandom(16), 3).bytes(), "not under way")
        answer = call(self.a.address, open_frame("SETTLE", os.urandom(16)).bytes())
        number, outcome = struct.unpack_from("<H10xQ", answer, 4)
        check(number == MESSAGES["SETTLED"] and outcome == 0,
              f"answer {answer!r}")

    def test_crowd(self):
        """Two hundred that say nothing do not keep a migration out."""
        host, _, port = self.b.address.rpartition(":")
        crowd = [socket.create_connection((host, int(port))) for _ in range(200)]
        self.vm.move(self.b)
        self.vm.move(self.a)
        for sock in crowd:
            sock.close()

    def test_mute_is_dropped(self):
        self.mute.settimeout(30)
        check(self.mute.recv(1) == b"", "a connection that says nothing is kept")
        self.mute.close()


class HostileSource(Guest):
    """A source that lies, seen from godwitd and its worker."""

    weight = 20

    def setup(self):
        self.b = self.lab.host("b")

    def defines(self, *texts, definition=None, raw=None, **changes):
        source = FalseSource(self.b.address, definition=definition or {}, **changes)
        source.offer(raw)
        source.refused(*texts)
        check(self.b.list() == {}, f"left {self.b.list()}")

    def started(self, streams=1):
        # Who refused the last one has said so, and ends with its lock just after that.
        wait_for("who refused the last one to end", lambda: not self.b.workers(), 20)
        return FalseSource(self.b.address, streams=streams).start()

    def test_definitions(self):
        for raw in (b"", b"{", b"[]", b"null", b"\xff", b'{"streams":1}', b"{}" * 1000):
            self.defines(raw=raw)
        for streams in (0, -1, 65, 1 << 40, "2", None):
            self.defines("streams", streams=streams)
        self.defines(resident=-1)
        self.defines("memory", resident=1 << 60)

    def test_names(self):
        for name in ("../../etc", "", ".", "a/b", "x" * 500, "-x", 5, None):
            self.defines(definition={"name": name})

    def test_commands(self):
        marker = os.path.join(self.lab.dir, "marker")
        for argv in (["/bin/sh", "-c", f"touch {marker}"], [], ["qemu-system-x86_64", 5],
                     ["/bin/qemu-system-x86_64/../sh"], "qemu-system-x86_64", None,
                     ["qemu-img", "create", marker, "1M"], ["x"] * 5000):
            self.defines(definition={"argv": argv})
        check(not os.path.exists(marker), "a stranger's command was run")

    def test_memories(self):
        def memory(size, name="m"):
            return {"id": name, "size": size}
        for value in ([], [memory(0)], [memory(4095)], [memory(-4096)], [memory(5000)],
                      [memory((1 << 63) - 4096)], [memory(MIB, "a/b")], [memory(MIB, "")],
                      [memory(MIB)] * 17, [memory(MIB)] * 2, [5], 5, None,
                      [memory("1M")], [memory(MIB, "x" * 100)]):
            self.defines(definition={"memory": value})

    def test_places(self):
        for value in ("relative", "", None, 7):
            self.defines(definition={"cwd": value})
        for value in (None, 7, "no-such-machine"):
            self.defines(definition={"machine": value})

    def test_order(self):
        """Messages that are not due."""
        for name in MESSAGES:
            if name in ("COUNT", "DEFINE", "ERROR", "CANCEL"):
                continue
            source = FalseSource(self.b.address)
            source.expect("ACCEPT")
            source.say(name)
            source.refused(name)
        for name in MESSAGES:
            if name in ("COUNT", "ROUND_END", "VERIFY", "ERROR", "CANCEL"):
                continue
            source = self.started()
            source.say(name)
            source.refused("source: sent ")

    def test_gives_up(self):
        """CANCEL, ERROR or nothing but the end: all is removed."""
        for name in ("CANCEL", "ERROR"):
            source = self.started()
            source.say(name, payload=b"I changed my mind")
            source.refused("source: I changed my mind")
        source = self.started(3)
        source.close()
        source = FalseSource(self.b.address)
        source.close()

    def test_streams(self):
        source = FalseSource(self.b.address, streams=2)
        source.offer()
        source.expect("READY")
        source.join(0)
        stranger = socket.create_connection(("127.0.0.1", int(self.b.address.split(":")[1])))
        stranger.sendall(open_frame("STREAM", source.id, 0).bytes())
        source.refused("stream 0 joined twice")
        stranger.close()

    def stream(self, frame, *texts):
        """What happens after @frame on a stream."""
        source = self.started()
        source.streams[0].sendall(frame.bytes() if isinstance(frame, Frame) else frame)
        source.say("ROUND_END", 1)
        source.refused(*texts)

    def pages(self, records, *texts, chunk=0):
        self.stream(Frame("PAGES", chunk, records), *texts)

    def test_records(self):
        def record(stage, first, count, body=b"", length=None, flags=0):
            return struct.pack("<BBBBI", stage, first, count - 1, flags,
                               len(body) if length is None else length) + body
        page = b"x" * 4096
        self.pages(record(7, 0, 1, page), "beyond the VM's memory", chunk=4)
        self.pages(record(7, 0, 1, page), "beyond the VM's memory", chunk=1 << 60)
        self.pages(record(7, 0, 1, page)[:-1], "reaches beyond")
        self.pages(record(7, 0, 1, page, length=4097), "reaches beyond")
        self.pages(record(7, 0, 1, page, length=0xffffffff), "reaches beyond")
        self.pages(record(7, 255, 2, page * 2), "reaches beyond")
        self.pages(record(7, 0, 2, page), "raw record of 2 pages with 4096 bytes")
        self.pages(record(7, 0, 1, page[:100]), "raw record of 1 pages with 100 bytes")
        self.pages(record(7, 0, 1, page, flags=1), "with 4096 bytes and flags 1")
        self.pages(record(1, 0, 5, b"zero?"), "zero record with a body")
        self.pages(record(2, 0, 1), "a record of 1 pages that are the same")
        self.pages(record(4, 0, 1, struct.pack("<Q", 1 << 60)), "beyond the VM's memory")
        self.pages(record(4, 0, 2, struct.pack("<Q", 1)), "page 1 is a copy of itself")
        self.pages(record(0, 0, 1), "unknown stage 0")
        self.pages(record(200, 0, 1), "unknown stage 200")
        self.pages(b"abc", "cut short")

    def test_barriers(self):
        for number in (0, 2, (1 << 64) - 1):
            self.stream(Frame("BARRIER", number), f"barrier {number} on a stream that is at 0")
        self.stream(Frame("DEFINE", 0, b"{}"), "DEFINE frame on a stream")
        self.stream(Frame("COMMIT"), "COMMIT frame on a stream")
        self.stream(b"\0" * 64, "does not speak")
        frame = Frame("PAGES", 0, b"x" * 100)
        frame.payload[50] ^= 1
        self.stream(frame, "PAGES frame arrived damaged (checksum)")
        for number in (0, 2, 1 << 63):
            source = self.started()
            source.say("BARRIER", 1, stream=0)
            source.say("ROUND_END", number)
            source.refused("sent ROUND_END")

    def round(self):
        """A migration whose first round is over."""
        source = self.started()
        source.say("BARRIER", 1, stream=0)
        source.say("ROUND_END", 1)
        check(source.expect("ROUND_DONE").arg == 1, "round")
        return source

    def test_verification(self):
        zeros = bytes(16)
        for arg, payload, text in ((0, zeros * 5, "sent VERIFY"), (1, zeros, "sent VERIFY"),
                                   (0, zeros[:15], "sent VERIFY")):
            source = self.round()
            source.say("VERIFY", arg, payload)
            source.refused(text)
        source = self.round()
        source.say("VERIFY", 0, zeros * 4)
        source.say("VERIFY_END")
        source.refused("verification failed")
        source = self.round()
        source.say("VERIFY_END")
        source.refused("sent VERIFY_END")

    def test_device_state(self):
        for payload in (b"garbage" * 1000, os.urandom(100000)):
            source = self.round()
            source.say("DEVICE", payload=payload)
            source.say("DEVICE_END")
            source.refused("load of migration failed")
        source = self.round()
        source.say("DEVICE", payload=b"")
        source.refused("sent DEVICE")

    def test_early_commit(self):
        """No COMMIT counts before QEMU has loaded its state."""
        source = self.round()
        source.say("COMMIT")
        source.refused("sent COMMIT")

    def test_many_at_once(self):
        """Many migrations that begin and never go on."""
        sources = [FalseSource(self.b.address, name=f"n{i}") for i in range(8)]
        threads = [threading.Thread(target=source.start) for source in sources]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check(len(self.b.list()) == 8, f"{self.b.list()}")
        # Two of one name: only the first is taken.
        FalseSource(self.b.address, name="n3").close()
        for source in sources:
            source.close()
        wait_for("them to be removed", lambda: not self.b.list())


class Tampered(Guest):
    """A real migration, with someone in the middle who changes frames."""

    weight = 25

    def tampered(self, name, change, *texts, nth=1):
        proxy = self.lab.closing(Proxy(self.b.address))
        rule = proxy.at(name, change, nth)
        self.fails(proxy.address, *texts)
        proxy.reached(rule)
        wait_for("b to forget it", lambda: not self.b.list(), 5)

    def test_bit_flips(self):
        """One bit, anywhere in any kind of frame, is noticed."""
        rng = random.Random(2)
        for name, nth in (("PAGES", 1), ("PAGES", 30), ("DEFINE", 1), ("ROUND_END", 1),
                          ("BARRIER", 2), ("VERIFY", 2), ("DEVICE", 1), ("DEVICE_END", 1),
                          ("LOAD", 1)):
            def flip(frame):
                # Not in the length: that would only make the receiver wait for more.
                where = rng.choice([i for i in range(HEADER + len(frame.payload))
                                    if not 8 <= i < 12])
                target = frame.head if where < HEADER else frame.payload
                target[where if where < HEADER else where - HEADER] ^= 1 << rng.randrange(8)
            self.tampered(name, flip, "destination: ", nth=nth)

    def test_answers(self):
        """The same for what the destination says."""
        for name in ("READY", "ROUND_DONE", "VERIFIED", "HELD", "LOADED"):
            def flip(frame):
                frame.head[16] ^= 1
            self.tampered(name, flip, "destination", "frame arrived damaged (checksum)")

    def test_wrong_answers(self):
        def instead(name, arg=0):
            return lambda frame: Frame(name, arg).bytes()
        self.tampered("ROUND_DONE", instead("ROUND_DONE", 7),
                      "destination: ended round 7 where 1 was due")
        self.tampered("LOADED", instead("COMMIT"), "sent COMMIT where LOADED was due")
        self.tampered("READY", instead("RUNNING"), "sent RUNNING where READY was due")
        self.tampered("VERIFIED", instead("LOADED"), "sent LOADED where VERIFIED was due")

    def test_page_changed(self):
        """Well-formed, but not what the guest has: --verify finds it."""
        def change(frame):
            frame.payload[-1] ^= 1
            frame.seal()
        self.tampered("PAGES", change, "verification failed: pages", "differ", nth=3)

    def test_page_lost(self):
        # The last round's pages: nothing heals them.
        def lose(frame):
            return b""
        self.tampered("PAGES", lose, "verification failed: pages", nth=2)

    def test_digest_changed(self):
        def change(frame):
            frame.payload[5] ^= 1
            frame.seal()
        # The first has none: it has the destination begin.
        self.tampered("VERIFY", change, "verification failed: pages 0 to 255 differ", nth=2)

    def test_device_state_changed(self):
        def change(frame):
            frame.payload[:4] = b"EVIL"
            frame.seal()
        self.tampered("DEVICE", change, "destination: QEMU ended on host 'b'",
                      "load of migration failed")

    def test_device_state_cut(self):
        def shorten(frame):
            del frame.payload[1000:]
            frame.seal()
        self.tampered("DEVICE", shorten, "destination: QEMU ended on host 'b'",
                      "load of migration failed")

    def test_barrier_repeated(self):
        def repeat(frame):
            return frame.bytes() * 2
        self.tampered("BARRIER", repeat, "barrier 1 on a stream that is at 1")

    def test_cut_in_a_frame(self):
        def cut(frame):
            proxy_end = frame.connection
            proxy_end.right.sendall(frame.bytes()[:1000])
            proxy_end.end()
            return b""
        self.tampered("PAGES", cut, "closed the connection", nth=5)

    def test_then_moves(self):
        self.vm.move(self.b)
        self.vm.move(self.a)


class UnseenWriters(Group):
    """Devices that write guest memory past every tracker are refused."""

    weight = 5

    def setup(self):
        self.a = self.lab.host("a")

    def backend(self, path):
        """A vhost-user network backend that says what QEMU wants to hear, and does nothing."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(1)

        def serve():
            sock, _ = listener.accept()
            while True:
                head = receive_exactly(sock, 12)
                if len(head) < 12:
                    return
                request, _, size = struct.unpack("<III", head)
                receive_exactly(sock, size)
                if request == 1:  # GET_FEATURES
                    sock.sendall(struct.pack("<IIIQ", request, 5, 8, 1 << 32))
                elif request == 11:  # GET_VRING_BASE
                    sock.sendall(struct.pack("<IIIII", request, 5, 8, 0, 0))
        threading.Thread(target=serve, daemon=True).start()
        return self.lab.closing(listener)

    def test_vhost_user(self):
        path = os.path.join(self.lab.dir, "vhost.sock")
        self.backend(path)
        self.a.godwit("run", "vu", "--memory", "64M", "--", "qemu-system-x86_64", "-nodefaults",
                      "-display", "none", "-chardev", f"socket,id=c,path={path}",
                      "-netdev", "vhost-user,id=n,chardev=c",
                      "-device", "virtio-net-pci,netdev=n,romfile=").failed(
                          "could never be moved", "vhost-user", "writes the guest's memory")
