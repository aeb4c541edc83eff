"""Calling the notification hook: `exec:` and a program that reads the document on standard input, or an http(s) address that it is
posted to. The hook itself is never shown: its address may contain a secret."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

from archisync.base import processes
from archisync.base.errors import ConfigurationError

CALL_TIMEOUT_S = 5.0
"""A hook hands a message on. One that takes longer needs a queue of its own."""
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+-]+")
"""A program's name that may be shown. Anything else, such as an address or a variable set before the name, may contain a secret."""
_PASSED = ("PATH", "HOME", "LANG", "TZ")


class HookError(Exception):
    """The hook did not take the document. The text says why, without a secret."""


def check_hook(hook: str) -> None:
    """Raise ConfigurationError unless the program exists, or the library for http is installed. Nothing is sent."""
    if not hook.startswith("exec:"):
        _httpx()
        return
    program = _arguments(hook)[0]
    if shutil.which(program) is not None:
        return
    if not _PLAIN_PATH.fullmatch(program):
        raise ConfigurationError("ARCHISYNC_HOOK names a program that can't be run", hint="exec:/usr/local/bin/notify")
    raise ConfigurationError(
        f"ARCHISYNC_HOOK names a program that can't be run: {program}", hint=f"ls -l {shlex.quote(program)}"
    )


def call_hook(hook: str, body: bytes, environment: Mapping[str, str]) -> None:
    """Give the hook one document. Returns within CALL_TIMEOUT_S; raises HookError if the hook has not taken it by then."""
    if hook.startswith("exec:"):
        _run_program(_arguments(hook), body, environment)
    else:
        _post(hook, body)


def _arguments(hook: str) -> list[str]:
    try:
        arguments = shlex.split(hook.removeprefix("exec:"))
    except ValueError:
        arguments = []
    if not arguments:
        raise ConfigurationError("ARCHISYNC_HOOK names no program", hint="exec:/usr/local/bin/notify")
    return arguments


def _run_program(arguments: list[str], body: bytes, environment: Mapping[str, str]) -> None:
    """Run the operator's own program: without a shell, and without archisync's settings in its environment."""
    try:
        done = processes.run(
            arguments,
            content=body,
            timeout_s=CALL_TIMEOUT_S,
            guarded=True,
            env={name: environment[name] for name in _PASSED if name in environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError as exc:
        raise HookError(f"the program can't be started: {exc.strerror}") from exc
    except subprocess.TimeoutExpired:
        raise HookError(f"the program took longer than {CALL_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        raise HookError(f"the program ended with {done.returncode}")


def _post(url: str, body: bytes) -> None:
    """Post in a thread: httpx bounds each read and not the whole call, and a tick must end in time."""
    failures = ["no answer in time"]

    def post() -> None:
        failures[:] = _post_failure(url, body)

    thread = threading.Thread(target=post, name="archisync-hook", daemon=True)
    thread.start()
    thread.join(CALL_TIMEOUT_S)
    if failures:
        raise HookError(failures[0])


def _post_failure(url: str, body: bytes) -> list[str]:
    """Why the address did not take the document, in words without the address; empty if it did."""
    httpx = _httpx()
    try:
        with (
            httpx.Client(timeout=CALL_TIMEOUT_S, trust_env=False, follow_redirects=False) as client,
            client.stream("POST", url, content=body, headers={"content-type": "application/json"}) as answer,
        ):
            return [] if answer.is_success else [f"the address answered {answer.status_code}"]
    except (httpx.InvalidURL, ValueError):  # ValueError: the host's name can't be encoded
        return ["the address is not one that can be called"]
    except Exception as exc:  # noqa: BLE001 - nobody would see it in a thread
        return [f"the address can't be reached: {type(exc).__name__}"]


def _httpx() -> Any:
    try:
        import httpx
    except ModuleNotFoundError:
        raise ConfigurationError(
            "an http(s):// hook needs httpx, which is not installed", hint="pip install 'archisync[http]'"
        ) from None
    return httpx
