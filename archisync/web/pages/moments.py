"""Times on a page: in the company's zone, with UTC one hover away, and ages that a script keeps up to date."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from markupsafe import Markup, escape

from archisync.base.text import iso, printable, redact, relative

_STAMP = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
VOLATILE = re.compile(r"(<time[^>]*>)[^<]*")
"""What changes on a page by itself, as time passes: it does not count for the page's ETag."""
LONGEST_TEXT = 4000


def harmless(text: str) -> str:
    """The text of whoever wrote it, printable and without passwords. It is not escaped yet."""
    return printable(redact(text), limit=LONGEST_TEXT)


@dataclass(frozen=True)
class Moments:
    """How times are written on one page: in `zone`, seen from `now`."""

    zone: tzinfo
    now: datetime

    def exact(self, moment: datetime | None, otherwise: str = "never", *, to_the_second: bool = False) -> Markup:
        """23:04 CET; with the day unless it is today, and the year unless it is this one."""
        if moment is None:
            return escape(otherwise)
        local, today = moment.astimezone(self.zone), self.now.astimezone(self.zone)
        day = "" if local.date() == today.date() else f"{local.day} {local:%b} "
        if local.year != today.year:
            day = f"{local.day} {local:%b %Y} "
        return self._element(moment, f"{day}{local:{'%H:%M:%S' if to_the_second else '%H:%M'}} {local:%Z}")

    def age(self, moment: datetime | None, otherwise: str = "never") -> Markup:
        """12 min ago, or in 37 min."""
        if moment is None:
            return escape(otherwise)
        return self._element(moment, relative(moment, self.now), ages=True)

    def hour(self, moment: datetime) -> str:
        """23:04, for a chart."""
        return f"{moment.astimezone(self.zone):%H:%M}"

    @property
    def zone_name(self) -> str:
        return self.now.astimezone(self.zone).tzname() or "UTC"

    def clock(self) -> Markup:
        """The time now, in the zone and in UTC."""
        local = self.now.astimezone(self.zone)
        offset = local.utcoffset()
        minutes = int(offset.total_seconds() // 60) if offset else 0
        text = f"{local:%H:%M:%S %Z}" if local.tzname() == "UTC" else f"{local:%H:%M:%S %Z} · {self.now:%H:%M:%S} UTC"
        return Markup('<time data-clock="{}" data-zone="{}">{}</time>').format(minutes, local.tzname(), text)

    def in_words(self, text: str | None) -> Markup:
        """A sentence of the commands, in which each time is written as on the page, and no line ends between a number and its %."""
        parts, end = [Markup()], 0
        text = harmless(text or "").replace(" %", "\N{NO-BREAK SPACE}%")
        for found in _STAMP.finditer(text):
            parts += [escape(text[end : found.start()]), self._parsed(found.group())]
            end = found.end()
        return Markup().join([*parts, escape(text[end:])])

    def _parsed(self, stamp: str) -> Markup:
        try:
            return self.exact(datetime.fromisoformat(stamp))
        except ValueError:
            return escape(stamp)

    def _element(self, moment: datetime, text: str, *, ages: bool = False) -> Markup:
        moment = moment.astimezone(UTC)
        local = moment.astimezone(self.zone)
        title = f"{local:%Y-%m-%d %H:%M:%S %Z}, {moment:%H:%M:%S} UTC"
        mark = Markup(" data-ago") if ages else ""
        return Markup('<time datetime="{}" title="{}"{}>{}</time>').format(iso(moment), title, mark, text)
