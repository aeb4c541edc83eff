"""Another account than root's, for tests that run as root."""

import os
import traceback
from collections.abc import Callable


def as_other_user(action: Callable[[], None]) -> None:
    """Run `action` in a forked child that has become nobody; what it raises is printed and fails the test."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            action()
            os._exit(0)
        except BaseException:  # noqa: BLE001 — the child must never return into pytest
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
