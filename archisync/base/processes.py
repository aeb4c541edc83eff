"""What child processes of archisync have in common: how they are started, that they die with their parent; and whether another
process is there."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from archisync.base.signals import held_back

PR_SET_PDEATHSIG = 1


def start(arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """`subprocess.Popen`, but that a Ctrl-C which comes meanwhile is not lost: it is raised, and the process ended with its group, if it
    was to have one. Raises what Popen raises."""
    process: subprocess.Popen[bytes] | None = None
    try:
        with held_back():
            process = subprocess.Popen(arguments, **options)  # noqa: S603 - the callers say whose commands these are
    except KeyboardInterrupt:
        if process is not None:
            _end(process, whole_group=bool(options.get("start_new_session")))
        raise
    return process


def _end(process: subprocess.Popen[bytes], *, whole_group: bool) -> None:
    with suppress(ProcessLookupError, PermissionError):  # one that has become another user's (sudo) is not waited for
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies. Linux only; elsewhere a tick's reaper does it later."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)  # the parent died before the call


def pid_namespace() -> str | None:
    """The kernel's name of what this process's id counts in, a container or the whole host; None where it has no such thing.

    Two containers of one pod share the host's name and count process ids each for itself.
    """
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - a name, not a path
    except OSError:
        return None


def is_running(pid: int) -> bool:
    """Whether there is a process of that id, in our own namespace."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def child_limits(parent_pid: int, *, memory_bytes: int = 0, cpu_s: int = 0, file_bytes: int = 0) -> Callable[[], None]:
    """What a child does between fork and exec: die with its parent, leave no core dump, and keep to limits (0: none) of
    address space, processor time and the size of a file that it writes."""
    limits = {
        resource.RLIMIT_CORE: 0,  # a core dump would hold customers' data
        **({resource.RLIMIT_AS: memory_bytes} if memory_bytes else {}),
        **({resource.RLIMIT_FSIZE: file_bytes} if file_bytes else {}),
    }

    def prepare() -> None:
        die_with_parent(parent_pid)
        for limit, value in limits.items():
            resource.setrlimit(limit, (value, value))
        if cpu_s:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))

    return prepare
