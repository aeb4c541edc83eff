"""The account that PostgreSQL runs as: it refuses to run as root, so root runs it as nobody.

The data folder then belongs to nobody, so whatever else runs as nobody on this machine can read and change it. Nothing else is opened to
that account: a folder that it can't reach is an error, and it may not connect.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archisync.base.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Account:
    """Where `Account | None` is asked for, None means the user of this process."""

    name: str
    uid: int
    gid: int

    def may_enter(self, folder: Path) -> bool:
        """Whether the folder's permission bits let this account pass through it."""
        found = folder.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        return bool(found.st_mode & (stat.S_IXGRP if found.st_gid == self.gid else stat.S_IXOTH))


def postgres_account() -> Account | None:
    """nobody when this process is root's, otherwise None. Raises ConfigurationError when there is no such user."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise ConfigurationError(
            "PostgreSQL refuses to run as root, and there is no user nobody to run it as",
            hint="run this as another user",
        ) from None
    return Account(name=nobody.pw_name, uid=nobody.pw_uid, gid=nobody.pw_gid)


def process_options(account: Account | None) -> dict[str, Any]:
    """Options of `subprocess.Popen` for a process of the account that inherits no variable: one may hold a secret."""
    user = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
    return user | {"cwd": "/", "env": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}, "umask": 0o077}


def closed_parent(folder: Path, account: Account | None) -> Path | None:
    """The first folder on the way to `folder`, itself included, that the account may not enter. What is not there yet counts as open."""
    if account is None:
        return None
    folder = folder.resolve()
    steps = (step for step in (*reversed(folder.parents), folder) if step.exists())
    return next((step for step in steps if not account.may_enter(step)), None)


def check_reachable(folder: Path, account: Account | None) -> None:
    """Raises ConfigurationError when the account may not enter the folder."""
    closed = closed_parent(folder, account)
    if account is not None and closed is not None:
        raise ConfigurationError(
            f"root runs PostgreSQL as the user {account.name}, who may not enter {closed}",
            hint="archisync up --folder /var/lib/archisync   (everybody may enter the folders above it)",
        )


def give(folder: Path, account: Account | None) -> None:
    """Make the account the folder's owner. Raises ConfigurationError when this root may not, as in some containers."""
    if account is None:
        return
    try:
        os.chown(folder, account.uid, account.gid)
    except OSError as exc:
        raise ConfigurationError(
            f"PostgreSQL refuses to run as root, and this root may not give {folder} to the user {account.name}: {exc}",
            hint="run this as another user",
        ) from exc
