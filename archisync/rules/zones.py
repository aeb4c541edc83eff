"""What to do about a time zone that is not found."""

from __future__ import annotations


def hint() -> str:
    """An example; of a machine that has no time zone files at all, as a small container image, how it gets them."""
    from zoneinfo import available_timezones

    if available_timezones():
        return "for example Europe/Rome"
    return "this machine has no time zone files: apt install tzdata, or pip install tzdata"
