"""Ends process groups when this process is gone, however it ended: also after SIGKILL, which nobody can handle.

The kernel kills a child with its parent (`processes.die_with_parent`), but not what the child has started: a shell's `cat` would wait for
ever. So a small process of its own session reads from a pipe which groups there are. When this process dies, the pipe ends, and it kills
those that are left.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass

_SCRIPT = """
import os, signal
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)
groups, new = set(), set()
for line in open(0):
    if line == "!\\n": new.clear(); continue
    group = int(line[1:])
    if line[0] == "?": new.add(group); continue
    new.discard(group)
    (groups.add if line[0] == "+" else groups.discard)(group)
for group in groups | new:
    try: os.killpg(group, signal.SIGKILL)
    except OSError: pass
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Guard:
    """The pipe to the guard of the process `owner`; a fork inherits it and needs one of its own."""

    owner: int
    pipe: int


_guard: _Guard | None = None


def prepare() -> None:
    """Start the guard of this process, unless there is one. Without memory or descriptors for it there is none."""
    global _guard
    if _guard is not None and _guard.owner == os.getpid():
        return
    if _guard is not None:
        with suppress(OSError):
            os.close(_guard.pipe)
        _guard = None
    with suppress(OSError):
        _guard = _Guard(owner=os.getpid(), pipe=_started())


def announce() -> None:
    """End the calling process' group when its parent dies: between fork and exec, for the parent may die before it can say so itself."""
    if _guard is None:
        return
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # somebody may have killed the guard
    with suppress(OSError):
        os.write(_guard.pipe, f"?{os.getpid()}\n".encode())
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as Popen leaves it to a program


def watch(group: int) -> None:
    """End the group when this process dies."""
    prepare()
    _tell(f"+{group}\n")


def nobody_came() -> None:
    """A child that announced itself could not become its program, and its number may belong to others."""
    _tell("!\n")


def forget(group: int) -> None:
    """The group has ended."""
    if _guard is not None and _guard.owner == os.getpid():
        _tell(f"-{group}\n")


def stop() -> None:
    """End the guard, and with it whoever is left."""
    global _guard
    if _guard is not None:
        os.close(_guard.pipe)
        _guard = None


def _tell(line: str) -> None:
    global _guard
    if _guard is None:
        return
    try:
        os.write(_guard.pipe, line.encode())
    except OSError:  # somebody has killed the guard
        os.close(_guard.pipe)
        _guard = None


def _started() -> int:
    """Spawned and not forked, because this process has threads, and not waited for, because it outlives this process."""
    theirs, ours = os.pipe()
    try:
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", _SCRIPT],
            {"PATH": os.defpath},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return ours
