"""Which other users of this machine may have written what a file says."""

from __future__ import annotations

import grp
import os
import pwd
import stat


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _is_private_group(gid: int) -> bool:
    """Whether the group is this user's own, as Debian and Fedora make one for each user (with an umask of 002)."""
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def others_may_write(found: os.stat_result) -> bool:
    """Whether the mode lets anybody write but the owner and this user."""
    open_to_group = found.st_mode & stat.S_IWGRP and not _is_private_group(found.st_gid)
    return bool(open_to_group or found.st_mode & stat.S_IWOTH)


def who_else_writes(found: os.stat_result) -> str | None:
    """Who besides root and this user may have written the file, as the end of a sentence about it. None: nobody."""
    if found.st_uid not in (0, os.geteuid()):
        return f"belongs to {user_name(found.st_uid)}, not to {user_name(os.geteuid())}"
    return "may be written to by others" if others_may_write(found) else None
