# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest tells of its page cache, guest/abi.h: a reader of streams, and a host's side of the port.

The reference for who writes the same in C. Nothing that comes from the guest is trusted: each
malformed stream or frame is a Malformed.
"""

import os
import socket
import struct

PAIR = 16
MAGIC = b"GWCACHE\1"
LOW = (1 << 48) - 1

ASK = b"GWAGENT?"
SAY = b"GWAGENT!"
VERSION = 1
REPORT = 1
REQUEST = struct.Struct("<8sQIIQ")
FRAME = struct.Struct("<8sQIIII")
END_BODY = struct.Struct("<QQII")
FRAME_MAX = 65536
PIECE, END, ERROR = 1, 2, 3
MODULE, SELF = 1, 2


class Malformed(Exception):
    """What no guest that keeps to the ABI sends."""


class Refused(Exception):
    """The guest answered with an error."""

    def __init__(self, version, text):
        super().__init__(text)
        self.version = version


class Gone(Exception):
    """The connection ended before the answer."""


def demand(condition, message):
    if not condition:
        raise Malformed(message)


class Report:
    """A stream that has been read: runs of (frame, pages, disk, sector), and disks by index."""

    def __init__(self, stream):
        self.runs, self.disks, self.source = [], {}, None
        demand(len(stream) >= PAIR and len(stream) % PAIR == 0, f"a stream of {len(stream)} bytes")
        magic, self.page_size, zero = struct.unpack_from("<8sII", stream)
        demand(magic == MAGIC and self.page_size == 4096 and zero == 0, f"header {stream[:PAIR]}")
        at = PAIR
        while at < len(stream):
            first, second = struct.unpack_from("<QQ", stream, at)
            at += PAIR
            if first & LOW == LOW:
                at = self._disk(stream, at, first >> 48, second)
            else:
                self._run(first & LOW, (first >> 48) + 1, second >> 48, second & LOW)

    def _disk(self, stream, at, pairs, second):
        index, sectors = second >> 48, second & LOW
        demand(index == len(self.disks), f"disk {index} after {len(self.disks)} disks")
        demand(0 < pairs <= 16 and at + pairs * PAIR <= len(stream), f"a text of {pairs} pairs")
        text = stream[at:at + pairs * PAIR].rstrip(b"\0")
        demand(text.isascii() and text.decode().isprintable() and text, f"a disk's text is {text}")
        self.disks[index] = (text.decode(), sectors)
        return at + pairs * PAIR

    def _run(self, frame, pages, disk, sector):
        demand(disk in self.disks, f"a run on disk {disk}, which was not told of")
        demand(sector + pages * (self.page_size // 512) <= self.disks[disk][1], f"a run beyond {self.disks[disk]}")
        self.runs.append((frame, pages, disk, sector))

    def pages(self):
        """(frame, the disk's text, byte on the disk) for each page."""
        for frame, pages, disk, sector in self.runs:
            for i in range(pages):
                yield frame + i, self.disks[disk][0], sector * 512 + i * self.page_size


class Port:
    """A host's connection to the agent's port."""

    def __init__(self, path, timeout):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)  # waits for its turn, which it does not with a timeout
        self.socket.settimeout(timeout)
        self.data = b""

    def send(self, data):
        self.socket.sendall(data)

    def request(self, version=VERSION, kind=REPORT):
        """Sends a request; its id."""
        number = int.from_bytes(os.urandom(8), "little")
        self.send(REQUEST.pack(ASK, number, version, kind, 0))
        return number

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise Gone()
        self.data += data

    def _frame(self, number):
        """The next frame of the answer to that request: version, kind, body."""
        start = SAY + struct.pack("<Q", number)
        while (at := self.data.find(start)) < 0:
            self.data = self.data[-len(start) + 1:]
            self._more()
        self.data = self.data[at:]
        while len(self.data) < FRAME.size:
            self._more()
        _, _, version, kind, length, zero = FRAME.unpack_from(self.data)
        demand(zero == 0 and FRAME.size + length <= FRAME_MAX, f"frame of {length} bytes, {zero}")
        while len(self.data) < FRAME.size + length:
            self._more()
        body = self.data[FRAME.size:FRAME.size + length]
        self.data = self.data[FRAME.size + length:]
        return version, kind, body

    def answer(self, number):
        """The whole answer: a Report."""
        stream = b""
        while True:
            version, kind, body = self._frame(number)
            if kind == ERROR:
                raise Refused(version, body.decode())
            demand(version == VERSION, f"an answer of version {version}")
            if kind == END:
                return self._end(stream, body)
            demand(kind == PIECE and body and len(body) % PAIR == 0, f"kind {kind}, {len(body)} bytes")
            stream += body

    @staticmethod
    def _end(stream, body):
        demand(len(body) == END_BODY.size, f"an end of {len(body)} bytes")
        runs, pages, source, zero = END_BODY.unpack(body)
        report = Report(stream)
        demand(zero == 0 and source in (MODULE, SELF), f"an end from {source}, {zero}")
        demand(runs == len(report.runs) and pages == sum(run[1] for run in report.runs),
               f"{runs} runs of {pages} pages were announced, {len(report.runs)} have come")
        report.source = source
        return report

    def ask(self):
        return self.answer(self.request())

    def close(self):
        self.socket.close()
