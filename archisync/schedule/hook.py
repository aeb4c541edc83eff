"""The notification hook: an address that is sent, or a program that reads, one JSON document a change.

Told when a hold begins, when a pair degrades (third failure in a row) and when either is over: once a change, however many runs it
lasts. The change and its notice are one transaction, and a notice is marked only when it was taken, so none is lost; one is repeated
(with the same `id`) if a tick dies between the two. The document has no secret in it, and the hook's own address is never shown.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any

from archisync.base import processes
from archisync.base.errors import ConfigurationError
from archisync.base.log import EventLog
from archisync.base.text import iso, redact
from archisync.store import notices
from archisync.store.database import Database
from archisync.store.notices import Notice

CALL_TIMEOUT_S = 5.0
"""A hook hands a message on; what takes longer belongs behind a queue of its own."""
LONGEST_S = 15.0
"""Of one tick's time for all calls together: syncs matter more than telling about them."""
DOCUMENT_SCHEMA = 1
_SHOWABLE = re.compile(r"[A-Za-z0-9_./+-]+")
"""A program's name; an address behind exec:, or a variable set before it, may hold a secret."""
_PASSED = ("PATH", "HOME", "LANG", "TZ")


class HookError(Exception):
    """The hook did not take the notice; the text says why, without a secret."""


def check(hook: str) -> None:
    """Raise ConfigurationError unless the hook can be called: the program exists, the extra is installed."""
    if hook.startswith("exec:"):
        program = _arguments(hook)[0]
        if shutil.which(program) is None:
            if not _SHOWABLE.fullmatch(program):
                raise ConfigurationError(
                    "ARCHISYNC_HOOK names a program that can't be run", hint="exec:/usr/local/bin/notify"
                )
            raise ConfigurationError(
                f"ARCHISYNC_HOOK names a program that can't be run: {program}", hint=f"ls -l {shlex.quote(program)}"
            )
        return
    _httpx()


def document(notice: Notice) -> dict[str, Any]:
    """What the hook gets. `id` is the same when a notice is repeated."""
    show = f"archisync {'held ' if notice.event == 'held' else ''}show {notice.run_id}"
    return {
        "schema": DOCUMENT_SCHEMA,
        "id": notice.id,
        "event": notice.event,
        "sync_type": notice.sync_type,
        "agent_id": notice.agent_id,
        "run_id": notice.run_id,
        "at": iso(notice.created_at),
        "message": redact(notice.message),
        "text": redact(f"archisync: {notice.message}"),  # the field that chat programs show
        "hint": show if notice.run_id is not None else f"archisync why {notice.sync_type} {notice.agent_id}",
    }


def deliver_notices(db: Database, hook: str, environment: Mapping[str, str], *, until: float) -> int:
    """Call the hook for each waiting notice, at most until that moment of `monotonic()`; the number that were taken.

    Raises ConfigurationError when the hook can't be called at all.
    """
    check(hook)
    notices.mend_clock(db)
    notices.expire(db)
    until = min(until, monotonic() + LONGEST_S) - CALL_TIMEOUT_S
    delivered = 0
    while monotonic() < until:
        # CRITICAL SECTION: one row is locked during a call of at most CALL_TIMEOUT_S; overlapping ticks pass it by.
        with db.transaction():
            notice = notices.lock_next(db)
            if notice is None:
                break
            delivered += _deliver(db, hook, environment, notice)
    return delivered


def _deliver(db: Database, hook: str, environment: Mapping[str, str], notice: Notice) -> bool:
    body = json.dumps(document(notice), ensure_ascii=False).encode()
    ids = {"notice": notice.id, "about": notice.event, "type": notice.sync_type, "agent": notice.agent_id}
    try:
        if hook.startswith("exec:"):
            _run(_arguments(hook), body, environment)
        else:
            _post(hook, body)
    except HookError as exc:
        notices.mark_refused(db, notice, str(exc))
        EventLog().event("notice-refused", **ids, because=str(exc))
        return False
    notices.mark_delivered(db, notice)
    EventLog().event("notice-delivered", **ids)
    return True


def _arguments(hook: str) -> list[str]:
    try:
        arguments = shlex.split(hook.removeprefix("exec:"))
    except ValueError:
        arguments = []
    if not arguments:
        raise ConfigurationError("ARCHISYNC_HOOK names no program", hint="exec:/usr/local/bin/notify")
    return arguments


def _run(arguments: list[str], body: bytes, environment: Mapping[str, str]) -> None:
    """Give the operator's own program the document on standard input. It gets none of archisync's settings, and there is no shell."""
    try:
        done = processes.run(
            arguments,
            content=body,
            timeout_s=CALL_TIMEOUT_S,
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


def _httpx() -> Any:
    try:
        import httpx
    except ModuleNotFoundError:
        raise ConfigurationError(
            "an http(s):// hook needs httpx, which is not installed", hint="pip install 'archisync[http]'"
        ) from None
    return httpx


def _post(url: str, body: bytes) -> None:
    """In a thread: the library bounds each read, not the whole call, and a tick must end by itself."""
    failures: list[str] = ["no answer in time"]

    def call() -> None:
        failures[:] = _post_failure(url, body)

    thread = threading.Thread(target=call, name="archisync-hook", daemon=True)
    thread.start()
    thread.join(CALL_TIMEOUT_S)
    if failures:
        raise HookError(failures[0])


def _post_failure(url: str, body: bytes) -> list[str]:
    """Why the address did not take it, in words without the address; empty when it did."""
    httpx = _httpx()
    try:
        with (
            httpx.Client(timeout=CALL_TIMEOUT_S, trust_env=False, follow_redirects=False) as client,
            client.stream("POST", url, content=body, headers={"content-type": "application/json"}) as answer,
        ):
            return [] if answer.is_success else [f"the address answered {answer.status_code}"]
    except (httpx.InvalidURL, ValueError):  # also what Python's and idna's encoding of a host's name raise
        return ["the address is not one that can be called"]
    except Exception as exc:  # noqa: BLE001 - nobody reads a thread's traceback, and whatever it was is the cause
        return [f"the address can't be reached: {type(exc).__name__}"]
