"""The ERP's printed reports: they have rows that are no records, and cells that hold several fields.

Only reports are read like this. In an export made for machines, a row with an empty id is a bad row and not decoration.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from archisync.formats.pdf.cycles import announced, is_footer
from archisync.formats.rows import BadRow, RawRow, Table
from archisync.rules.synctypes import SyncType
from archisync.sync.labels import map_labels

COURIER_URLS = {
    "fedex": "https://www.fedex.com/fedextrack/?trknbr={}",
    "ups": "https://www.ups.com/track?tracknum={}",
    "dhl": "https://www.dhl.com/it-it/home/tracking.html?tracking-id={}",
    "tnt": "https://www.tnt.it/tracking/getTrack.html?WT=1&ConsigNos={}",
    "gls": "https://gls-group.com/IT/it/servizi-online/ricerca-spedizioni?match={}",
    "brt": "https://vas.brt.it/vas/sped_det_show.hsm?Nspediz={}",
    "sda": "https://www.sda.it/wps/portal/Servizi_online/ricerca_spedizioni?locale=it&tracing-codes={}",
}
_TAG = re.compile(r"<[^>]*>")
_COURIER = re.compile(rf"({'|'.join(COURIER_URLS)})\b[\s:.,-]*(.*)", re.IGNORECASE | re.DOTALL)
_NO_ID = ("", "0")


class PrintedTable:
    """A report's table with its records only, and with combined cells taken apart. Raises what `map_labels` raises.

    `skipped`: rows left out so far. `missing`: how many more rows the footer announces than there are; known at the end.
    """

    def __init__(self, table: Table, sync_type: SyncType, aliases: Mapping[str, str]) -> None:
        self._table = table
        self.detected = table.detected
        self.skipped = 0
        self.missing = 0
        layout = map_labels(table.labels, sync_type, aliases)
        found = {field.name: at for field, at in zip(layout.columns, layout.positions, strict=True) if at >= 0}
        self._ids = [found[name] for name in sync_type.report_ids or sync_type.key[:1] if name in found]
        tracking = sync_type.tracking
        self._tracking = -1
        if tracking and tracking.number in found and not {tracking.courier, tracking.url} & found.keys():
            self._tracking = found[tracking.number]
        self.labels = table.labels
        if tracking and self._tracking >= 0:
            self.labels = (*table.labels, tracking.courier, tracking.url)

    def rows(self) -> Iterator[RawRow | BadRow]:
        """The records in the report's order. Each call starts again."""
        self.skipped = self.missing = 0
        announced_rows = read = 0
        for row in self._table.rows():
            read += 1
            if isinstance(row, BadRow):
                yield row
            elif is_footer(row.cells):
                announced_rows = max(announced_rows, announced(row.cells))
                read -= 1
                self.skipped += 1
            elif any((row.cells[at] or "").strip() in _NO_ID for at in self._ids):
                self.skipped += 1
            else:
                yield self._taken_apart(row) if self._tracking >= 0 else row
        self.missing = max(0, announced_rows - read)

    def _taken_apart(self, row: RawRow) -> RawRow:
        courier, number, url = split_tracking(row.cells[self._tracking] or "")
        cells = list(row.cells)
        cells[self._tracking] = number
        return RawRow(row.line, (*cells, courier, url))


def split_tracking(cell: str) -> tuple[str | None, str | None, str | None]:
    """Courier (lower case), number and URL of a tracking cell. The cell is an HTML anchor, courier and number, or a number alone.

    The URL is made from courier and number and never taken from the anchor. Without a courier there is none.
    """
    text = " ".join(html.unescape(_TAG.sub(" ", cell)).split())
    if not text:
        return None, None, None
    match = _COURIER.match(text)
    if match is None or not match[2]:
        return None, text, None
    words = match[2].split()
    first = next((at for at, word in enumerate(words) if any(map(str.isdigit, word))), 0)  # after "Express", "Italy"
    courier, number = match[1].lower(), "".join(words[first:])
    return courier, number, COURIER_URLS[courier].format(quote(number, safe=""))
