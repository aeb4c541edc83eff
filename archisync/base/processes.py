"""Child processes: how one is started and ended, and whether a process is there."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

from archisync.base import groupguard
from archisync.base.signals import held_back

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
POLL_S = 0.01
REAP_TIMEOUT_S = 3.0
"""A killed process is gone within milliseconds, unless it hangs in the kernel (a dead file server); nobody waits for that."""


def start(
    arguments: Sequence[str],
    *,
    death_signal: signal.Signals = signal.SIGKILL,
    memory_bytes: int = 0,
    cpu_s: int = 0,
    file_bytes: int = 0,
    guarded: bool = False,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """A running child, which leads a session and process group of its own; `options` are Popen's. `guarded`: whoever is left in its
    group is killed when this process dies, for the child starts processes of its own.

    The kernel sends `death_signal` to it when the thread that started it ends (Linux only). It leaves no core dump, and keeps to the limits
    (0: none) of its address space, its processor time and the size of a file that it writes. A Ctrl-C that comes in the meantime is raised
    when the child has been ended. Raises what Popen raises.
    """
    limits = {
        resource.RLIMIT_CORE: (0, 0),  # a core dump would hold customers' data
        **({resource.RLIMIT_AS: (memory_bytes, memory_bytes)} if memory_bytes else {}),
        **({resource.RLIMIT_FSIZE: (file_bytes, file_bytes)} if file_bytes else {}),
        **({resource.RLIMIT_CPU: (cpu_s, cpu_s + 1)} if cpu_s else {}),  # SIGXCPU, and a second later SIGKILL
    }
    child: subprocess.Popen[bytes] | None = None
    if guarded:
        groupguard.prepare()
    try:
        with held_back():
            child = subprocess.Popen(  # noqa: S603 - the callers say whose commands these are
                arguments,
                start_new_session=True,
                preexec_fn=_preparation(os.getpid(), death_signal, limits, guarded=guarded),
                **options,
            )
    except BaseException:
        if child is not None:
            end(child)
        elif guarded:
            groupguard.nobody_came()
        raise
    if guarded:
        groupguard.watch(child.pid)
    return child


def _preparation(
    parent_pid: int, death_signal: signal.Signals, limits: dict[int, tuple[int, int]], *, guarded: bool
) -> Callable[[], None]:
    """What the child does between fork and exec, after a change of user, which would take the death signal back."""

    def prepare() -> None:
        die_with_parent(parent_pid, death_signal)
        if guarded:
            groupguard.announce()
        for limit, values in limits.items():
            resource.setrlimit(limit, values)

    return prepare


_LIBC = ctypes.CDLL(
    None, use_errno=True
)  # loaded here: between fork and exec another thread's lock could be held for ever


def die_with_parent(parent_pid: int, death_signal: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process the signal when its parent dies. Linux only; elsewhere a tick's reaper ends what is left."""
    if sys.platform != "linux":
        return
    _LIBC.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)  # the parent died before the call


def run(
    arguments: Sequence[str], *, content: bytes = b"", timeout_s: float | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Start a child with `content` on its standard input, wait for its end, and end its group; `options` are those of `start`.

    Raises subprocess.TimeoutExpired after `timeout_s`, and what `start` raises.
    """
    child = start(arguments, stdin=subprocess.PIPE, **options)
    try:
        output, errors = child.communicate(content, timeout_s)
    finally:
        end(child)
    return subprocess.CompletedProcess(arguments, child.returncode, output, errors)


def end(child: subprocess.Popen[bytes], *steps: tuple[signal.Signals, float]) -> int | None:
    """End a child that `start` has started with its whole process group, reap it and close its pipes; its exit code.

    Each step is a signal and the seconds that the child gets to end after it. Whoever is left in the group then gets SIGKILL. The result is
    None for a child that has become another user's (sudo) and goes on running: it can't be signalled. Don't call this for a child that
    was reaped long ago: its number may belong to another group by now.
    """
    patience_s = REAP_TIMEOUT_S
    try:
        _signal_group(child, steps)
    except PermissionError:
        patience_s = 0.0
    with suppress(subprocess.TimeoutExpired):
        child.wait(patience_s)
    groupguard.forget(child.pid)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    return child.returncode


def _signal_group(child: subprocess.Popen[bytes], steps: Sequence[tuple[signal.Signals, float]]) -> None:
    with suppress(ProcessLookupError):
        for number, patience_s in steps:
            if _has_ended(child, 0.0):
                break
            os.killpg(child.pid, number)
            if _has_ended(child, patience_s):
                break
        os.killpg(child.pid, signal.SIGKILL)


def _has_ended(child: subprocess.Popen[bytes], within_s: float) -> bool:
    """Whether the child ends in that time. It is not reaped: until then no other process can have its number."""
    until = monotonic() + within_s
    while child.returncode is None and os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if monotonic() >= until:
            return False
        sleep(POLL_S)
    return True


def is_running(pid: int) -> bool:
    """Whether there is a process of that id, in our own namespace."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def pid_namespace() -> str | None:
    """The kernel's name of the namespace that this process's id counts in (a container, or the whole host); None where there are none.

    Two containers of one pod share the host's name, and each counts process ids for itself.
    """
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - a name, not a path
    except OSError:
        return None
