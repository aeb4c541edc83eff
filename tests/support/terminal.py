"""A command on a pseudo-terminal: what a person sees of it, and its exit code."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.support.warm import WarmCommand

ROWS = 50


def run_on_terminal(
    command: WarmCommand, arguments: Sequence[str], *, env: Mapping[str, str], columns: int, timeout_s: float
) -> tuple[int, str]:
    """Exit code, and everything that the command writes to a terminal of so many columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    with ThreadPoolExecutor(1) as pool:
        code = pool.submit(command.run_on, (slave, slave, slave), arguments, env=env, timeout_s=timeout_s)
        code.add_done_callback(lambda _: os.close(slave))
        written = b""
        try:
            while part := os.read(master, 65536):
                written += part
        except OSError:  # Linux's way to say that nobody has the other side open
            pass
        os.close(master)
        return code.result(), written.decode()
