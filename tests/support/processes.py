"""Waiting for the end of processes that the tests did not start themselves."""

import os
import select

GONE_TIMEOUT_S = 30.0


def wait_until_gone(pid: int) -> None:
    """Until the process has ended; fails when it lives on."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([process], [], [], GONE_TIMEOUT_S)[0], f"process {pid} lives on"
    finally:
        os.close(process)
