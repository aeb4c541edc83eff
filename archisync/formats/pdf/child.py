"""The child process of `archisync.formats.pdf.table`: takes a PDF's file name and writes its records as JSON Lines.

The first line has the labels, each line after it the cells of one record, and the last line an object with numbers.
"""

import json
import sys

from archisync.base.refusing import refusing


def _write() -> None:
    from archisync.formats.pdf.cycles import Cycles
    from archisync.formats.pdf.pages import read_pages

    dump = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
    cycles = Cycles(read_pages(sys.argv[1]))
    sys.stdout.write(dump(cycles.labels) + "\n")
    for record in cycles:
        sys.stdout.write(dump(record) + "\n")
    pages = cycles.cycles * cycles.slices
    sys.stdout.write(dump({"pages": pages, "slices": cycles.slices, "cycles": cycles.cycles}) + "\n")


if __name__ == "__main__":
    refusing(_write)
