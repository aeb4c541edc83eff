"""OpenSSH's `ssh` as a child process, and what its last words mean.

Host keys are always checked, and there is no switch: an unknown one is an error with its fingerprint and the line to add.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from archisync.base.errors import AuthenticationError, ConfigurationError, SourceError, SyncError, TransientSourceError
from archisync.base.processes import end, run, start
from archisync.base.text import printable

CONNECT_TIMEOUT_S = 15
_KEYSCAN_S = 8
_STDERR_BYTES = 16 * 1024
_PASSED = ("PATH", "HOME", "SSH_AUTH_SOCK", "TZ")
_OPTIONS = {
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
    "NumberOfPasswordPrompts": "1",
    "ConnectTimeout": str(CONNECT_TIMEOUT_S),
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "3",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ClearAllForwardings": "yes",
    "PermitLocalCommand": "no",
    "LogLevel": "ERROR",
}
_ASKPASS = "#!/bin/sh\nprintf '%s\\n' \"$ARCHISYNC_SSH_SECRET\"\n"
_REFUSED = re.compile(r"Permission denied|Too many authentication failures|No more authentication methods")
_CHANGED = re.compile(r"REMOTE HOST IDENTIFICATION HAS CHANGED")
_FINGERPRINT = re.compile(r"(SHA256:[A-Za-z0-9+/=]+)")
_CONFIGURATION = re.compile(
    r"Bad configuration option|terminating, \d+ bad configuration|Can't open user config file|bad permissions"
)


class Place(NamedTuple):
    """Where to log in. `user` and `port` may be left to ssh's own configuration."""

    host: str
    user: str = ""
    port: int = 0

    @property
    def shown(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"sftp://{host}" + (f":{self.port}" if self.port else "")


class Access(NamedTuple):
    """`config_file`: the ssh_config to use instead of the user's. `environment`: ours, of which ssh gets a part."""

    password: str
    config_file: str
    environment: Mapping[str, str]

    def __repr__(self) -> str:
        return "Access(…)"


@contextmanager
def ssh(place: Place, access: Access, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """`ssh` with the server's SFTP subsystem on its pipes, and the file with its standard error. `folder` is a private one.

    The process group ends with the block. Raises ConfigurationError when there is no ssh.
    """
    said_file, askpass = folder / "ssh.stderr", folder / "ssh.askpass"
    environment = _environment(access)
    try:
        if access.password:
            askpass.touch(mode=0o700)
            askpass.write_text(_ASKPASS)
            environment |= {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
            environment["ARCHISYNC_SSH_SECRET"] = access.password
        with said_file.open("w+b") as said:
            arguments = [*_command(place, access), "-s", "--", place.host, "sftp"]
            process = _started(arguments, environment, said)
            try:
                yield process, said
            finally:
                end(process)
    finally:
        said_file.unlink(missing_ok=True)
        askpass.unlink(missing_ok=True)


def _command(place: Place, access: Access, program: str = "ssh") -> list[str]:
    options = _OPTIONS | {"BatchMode": "no" if access.password else "yes"}
    return [
        program,
        "-T",
        *(["-F", access.config_file] if access.config_file else []),
        *(part for name, value in options.items() for part in ("-o", f"{name}={value}")),
        *(["-l", place.user] if place.user else []),
        *(["-p", str(place.port)] if place.port else []),
    ]


def _environment(access: Access) -> dict[str, str]:
    return {name: access.environment[name] for name in _PASSED if name in access.environment} | {"LC_ALL": "C"}


def _started(arguments: list[str], environment: Mapping[str, str], said: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return start(
            arguments,
            guarded=True,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            bufsize=0,
        )
    except FileNotFoundError as exc:
        raise ConfigurationError(
            "an sftp:// source needs OpenSSH's ssh", hint="apt-get install openssh-client"
        ) from exc
    except OSError as exc:
        raise TransientSourceError(f"ssh can't be started: {exc.strerror}", hint="free -m; ulimit -a") from exc


def failure(process: subprocess.Popen[bytes], said: IO[bytes], place: Place, access: Access) -> SyncError:
    """What the end of ssh means."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(1.0)  # its pipes are closed, so it is about to end
    said.seek(0)
    text = said.read(_STDERR_BYTES).decode("utf-8", "replace")
    if access.password:
        text = text.replace(access.password, "***")
    if _CHANGED.search(text):
        return _changed_key(place, text)
    if "Host key verification failed" in text:
        return _unknown_key(place, access)
    last = printable(" | ".join(line.strip() for line in text.splitlines() if line.strip())[-300:]) or "no word why"
    if _REFUSED.search(text):
        return AuthenticationError(
            f"{place.shown} does not let us in: {last}",
            hint=f"try it as archisync's account: {shlex.join(['sftp', *_address(place)])}",
        )
    if _CONFIGURATION.search(text):
        return _unusable(place, last)
    if "subsystem request failed" in text:
        return SourceError(f"{place.shown} has no SFTP: {last}", hint="ask whoever runs the server to enable it")
    return TransientSourceError(
        f"{place.shown}: the connection failed: {last}", hint=shlex.join(["sftp", *_address(place)])
    )


def _unusable(place: Place, last: str) -> SyncError:
    return SourceError(
        f"{place.shown}: ssh's configuration can't be used: {last}", hint="ssh -G, as archisync's account"
    )


def _address(place: Place) -> list[str]:
    port = ["-P", str(place.port)] if place.port else []
    return [*port, (f"{place.user}@" if place.user else "") + place.host]


def _changed_key(place: Place, text: str) -> SourceError:
    found = _FINGERPRINT.search(text)
    return SourceError(
        f"{place.shown} has another host key than before ({found[1] if found else 'unknown'}): it may be another server",
        hint=f"ask whoever runs it; only if the key was changed on purpose: ssh-keygen -R {shlex.quote(_known_as(place))}",
    )


def _unknown_key(place: Place, access: Access) -> SourceError:
    """With the fingerprint and the line to add, if the server shows its key."""
    lines = _scanned(place, access)
    if not lines:
        return SourceError(
            f"{place.shown} has a host key that is not known",
            hint=f"compare its fingerprint with the one that its operator names: ssh-keyscan {shlex.quote(place.host)} | ssh-keygen -lf -",
        )
    line = lines[-1]
    fingerprint = _output(["ssh-keygen", "-lf", "-"], access, line.encode() + b"\n").split()
    shown = fingerprint[1] if len(fingerprint) > 1 else "?"
    return SourceError(
        f"{place.shown} has a host key that is not known: {shown}",
        hint=f"if that is the fingerprint that its operator names: echo {shlex.quote(line)} >> ~/.ssh/known_hosts",
    )


def _scanned(place: Place, access: Access) -> list[str]:
    """The server's keys as lines of known_hosts, the best one last."""
    settings = dict(
        line.split(" ", 1)
        for line in _output([*_command(place, access), "-G", "--", place.host], access).splitlines()
        if " " in line
    )
    host, port = settings.get("hostname", place.host), settings.get("port", "22")
    scan = ["ssh-keyscan", "-T", "5", "-p", port, "-t", "ecdsa,ed25519", "--", host]
    lines = [line for line in _output(scan, access).splitlines() if line and not line.startswith("#")]
    return sorted(lines, key=lambda line: "ssh-ed25519" in line)


def _known_as(place: Place) -> str:
    return f"[{place.host}]:{place.port}" if place.port and place.port != 22 else place.host


def _output(arguments: list[str], access: Access, content: bytes = b"") -> str:
    try:
        done = run(
            arguments,
            content=content,
            timeout_s=_KEYSCAN_S,
            env=_environment(access),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")
