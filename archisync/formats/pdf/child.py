"""The child process of `archisync.formats.pdf.table`: takes a PDF's file name and writes its records as JSON Lines.

The first line has the labels, each line after it the cells of one record, and the last line an object with numbers. When the
export can't be trusted, the process ends with exit code 3 and an object on standard error: `reason`, `message`, `hint`.
"""

import json
import sys

EXIT_REFUSED = 3


def main() -> int:
    from archisync.base.errors import ExportError, TruncatedError
    from archisync.formats.pdf.cycles import Cycles
    from archisync.formats.pdf.pages import read_pages

    dump = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
    sys.stdout.reconfigure(encoding="utf-8", errors="replace", newline="\n")  # type: ignore[union-attr]
    try:
        cycles = Cycles(read_pages(sys.argv[1]))
        sys.stdout.write(dump(cycles.labels) + "\n")
        for record in cycles:
            sys.stdout.write(dump(record) + "\n")
        pages = cycles.cycles * cycles.slices
        sys.stdout.write(dump({"pages": pages, "slices": cycles.slices, "cycles": cycles.cycles}) + "\n")
        sys.stdout.flush()
    except ExportError as exc:
        reason = "truncated" if isinstance(exc, TruncatedError) else "unreadable"
        print(json.dumps({"reason": reason, "message": exc.message, "hint": exc.hint}), file=sys.stderr)  # noqa: T201
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
