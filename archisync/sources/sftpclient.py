"""The SFTP protocol, version 3 (draft-ietf-secsh-filexfer-02), as far as reading and renaming files needs it, over the pipes of OpenSSH's
`ssh`.

`ssh -s host sftp` does all that is about security: host keys, keys, agents, certificates, jump hosts, the user's configuration.
What is left is a protocol of a few packets. Reads are sent ahead, as `sftp` does it, so the speed is that of `ssh`.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import struct
import subprocess
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

READ_BYTES = 255 * 1024  # the most that OpenSSH returns at once; where a server returns less, less is asked for
READS_AHEAD = 16
_LEAST_READ_BYTES = 32 * 1024
_BLOCK_BYTES = 1024 * 1024
_MOST_PACKET_BYTES = 4 * 1024 * 1024
_VERSION = 3

_INIT, _VERSION_IS, _OPEN, _CLOSE, _READ, _FSTAT = 1, 2, 3, 4, 5, 8
_OPENDIR, _READDIR, _MKDIR, _STAT, _RENAME, _EXTENDED = 11, 12, 14, 17, 18, 200
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS = 101, 102, 103, 104, 105
_OPEN_TO_READ = 1
_EOF, NO_SUCH_FILE, PERMISSION_DENIED, _UNSUPPORTED = 1, 2, 3, 8
_HAS_SIZE, _HAS_OWNER, _HAS_MODE, _HAS_TIMES, _HAS_MORE = 1, 2, 4, 8, 0x80000000


class SftpStatusError(Exception):
    """The server's answer to a request: `code` is NO_SUCH_FILE, PERMISSION_DENIED or another one."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said)
        self.code = code
        self.said = said


class SftpLostError(Exception):
    """The connection has ended, or the server does not speak the protocol."""


class SftpTimeoutError(Exception):
    """The time for the whole fetch is over."""


class Attributes(NamedTuple):
    """What the server says of a file; None where it says nothing."""

    size: int | None
    mode: int | None
    modified: int | None

    @property
    def is_regular(self) -> bool:
        return self.mode is None or stat.S_ISREG(self.mode)


class SftpClient:
    """A session over a process's standard input and output. Nothing waits longer than `deadline` (monotonic seconds)."""

    def __init__(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()
        os.set_blocking(self._in, False)
        self._deadline = deadline
        with suppress(OSError, AttributeError):  # AttributeError: no Linux; OSError: this account has many such pipes
            fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, _BLOCK_BYTES)
        self._buffer = bytearray()
        self._number = 0
        self._send(_INIT, struct.pack(">I", _VERSION))
        kind, _ = self._packet()
        if kind != _VERSION_IS:
            raise SftpLostError("it does not speak SFTP")

    def attributes(self, path: bytes) -> Attributes:
        return self._attributes(_STAT, _text(path))

    def exists(self, path: bytes) -> bool:
        try:
            self.attributes(path)
        except SftpStatusError as exc:
            if exc.code != NO_SUCH_FILE:
                raise
            return False
        return True

    def is_folder(self, path: bytes) -> bool:
        mode = self.attributes(path).mode if self.exists(path) else None
        return mode is not None and stat.S_ISDIR(mode)

    def names(self, folder: bytes) -> Iterator[tuple[bytes, Attributes]]:
        """The names in the folder, as the server lists them."""
        handle = self._handle(_OPENDIR, _text(folder))
        while (answer := self._answer(self._request(_READDIR, _text(handle)), _NAME)) is not None:
            count, place = _number(answer, 0)
            for _ in range(count):
                name, place = _string(answer, place)
                _, place = _string(answer, place)  # the line of an `ls -l`
                found, place = _read_attributes(answer, place)
                yield name, found
        self._done(_CLOSE, _text(handle))

    def make_folder(self, path: bytes) -> None:
        self._done(_MKDIR, _text(path) + struct.pack(">I", 0))

    def rename(self, path: bytes, target: bytes) -> None:
        """Rename, in the place of another file where the server can do that (OpenSSH and most others)."""
        names = _text(path) + _text(target)
        try:
            self._done(_EXTENDED, _text(b"posix-rename@openssh.com") + names)
        except SftpStatusError as exc:
            if exc.code != _UNSUPPORTED:
                raise
            self._done(_RENAME, names)

    def open(self, path: bytes) -> OpenFile:
        return OpenFile(self, self._handle(_OPEN, _text(path) + struct.pack(">II", _OPEN_TO_READ, 0)))

    def _done(self, kind: int, body: bytes) -> None:
        self._answer(self._request(kind, body), _STATUS)

    def _attributes(self, kind: int, body: bytes) -> Attributes:
        answer = self._answer(self._request(kind, body), _ATTRS)
        return _read_attributes(answer or b"", 0)[0]

    def _handle(self, kind: int, body: bytes) -> bytes:
        answer = self._answer(self._request(kind, body), _HANDLE)
        return _string(answer or b"", 0)[0]

    def _request(self, kind: int, body: bytes) -> int:
        self._number += 1
        self._send(kind, struct.pack(">I", self._number) + body)
        return self._number

    def _answer(self, number: int, kind: int) -> bytes | None:
        """The body of the answer to that request; None for the end of a file or folder. Answers come in the order of the requests."""
        found, body = self._packet()
        answered, place = _number(body, 0)
        if answered != number:
            raise SftpLostError("its answers are out of order")
        if found == _STATUS:
            code, place = _number(body, place)
            if code == _EOF:
                return None
            if code == 0 and kind == _STATUS:
                return b""
            said = _string(body, place)[0] if len(body) > place else b""
            raise SftpStatusError(code, said.decode("utf-8", "replace"))
        if found != kind:
            raise SftpLostError("it does not speak SFTP")
        return body[place:]

    def _send(self, kind: int, body: bytes) -> None:
        packet = memoryview(struct.pack(">IB", len(body) + 1, kind) + body)
        while packet:
            if not select.select([], [self._in], [], self._left_s())[1]:
                raise SftpTimeoutError
            try:
                packet = packet[os.write(self._in, packet) :]
            except BrokenPipeError:
                raise SftpLostError("the connection has ended") from None

    def _packet(self) -> tuple[int, bytes]:
        self._fill(5)
        size, kind = struct.unpack_from(">IB", self._buffer)
        if not 1 <= size <= _MOST_PACKET_BYTES:
            raise SftpLostError("it does not speak SFTP")
        self._fill(4 + size)
        body = bytes(memoryview(self._buffer)[5 : 4 + size])
        del self._buffer[: 4 + size]
        return kind, body

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            if not select.select([self._out], [], [], self._left_s())[0]:
                raise SftpTimeoutError
            block = os.read(self._out, _BLOCK_BYTES)
            if not block:
                raise SftpLostError("the connection has ended")
            self._buffer += block

    def _left_s(self) -> float:
        left_s = self._deadline - monotonic()
        if left_s <= 0:
            raise SftpTimeoutError
        return left_s


class OpenFile:
    """A file that is read from its beginning to the end that it has when it is opened, and a byte further. `read_bytes` so far."""

    def __init__(self, client: SftpClient, handle: bytes) -> None:
        self._client = client
        self._handle = handle
        self._sent: deque[tuple[int, int, int]] = deque()  # request, offset, size
        self._next = 0
        self._ask_bytes = READ_BYTES
        self._ended = False
        self._block = memoryview(b"")
        self.read_bytes = 0

    def attributes(self) -> Attributes:
        """What they are now. What was asked for ahead is read and forgotten."""
        self._forget()
        return self._client._attributes(_FSTAT, _text(self._handle))

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; none at the end of the file."""
        if not self._block:
            self._block = memoryview(self._next_block())
        part, self._block = self._block[:size], self._block[size:]
        self.read_bytes += len(part)
        return bytes(part)

    def _next_block(self) -> bytes:
        while not self._ended and len(self._sent) < READS_AHEAD:
            self._ask(self._next, self._ask_bytes)
            self._next += self._ask_bytes
        while self._sent:
            number, offset, asked = self._sent.popleft()
            data = self._client._answer(number, _DATA)
            if data is None or self._ended:
                self._ended = True  # the reads that were sent ahead are answered alike, and waited for
                continue
            block = _string(data, 0)[0]
            if len(block) < asked:
                self._ask_bytes = max(len(block), _LEAST_READ_BYTES)
                self._read_rest(offset + len(block))
            if block:
                return block
            raise SftpLostError("it does not speak SFTP")
        return b""

    def _ask(self, offset: int, size: int) -> None:
        body = _text(self._handle) + struct.pack(">QI", offset, size)
        self._sent.append((self._client._request(_READ, body), offset, size))

    def _read_rest(self, offset: int) -> None:
        """After a short answer go on from there: forget what was sent ahead, which would leave a gap. Raises SftpLostError for an
        empty answer, which would never end."""
        self._forget()
        self._next = offset

    def _forget(self) -> None:
        while self._sent:
            self._client._answer(self._sent.popleft()[0], _DATA)


def _text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _number(body: bytes, place: int) -> tuple[int, int]:
    if len(body) < place + 4:
        raise SftpLostError("it does not speak SFTP")
    return struct.unpack_from(">I", body, place)[0], place + 4


def _string(body: bytes, place: int) -> tuple[bytes, int]:
    size, place = _number(body, place)
    if len(body) < place + size:
        raise SftpLostError("it does not speak SFTP")
    return body[place : place + size], place + size


def _read_attributes(body: bytes, place: int) -> tuple[Attributes, int]:
    flags, place = _number(body, place)
    size = mode = modified = None
    if flags & _HAS_SIZE:
        high, place = _number(body, place)
        low, place = _number(body, place)
        size = high << 32 | low
    if flags & _HAS_OWNER:
        place += 8
    if flags & _HAS_MODE:
        mode, place = _number(body, place)
    if flags & _HAS_TIMES:
        modified, place = _number(body, place + 4)
    if flags & _HAS_MORE:
        count, place = _number(body, place)
        for _ in range(2 * count):
            _, place = _string(body, place)
    return Attributes(size, mode, modified), place
