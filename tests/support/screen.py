"""A terminal's screen: interprets the escape sequences that `status --watch` writes, and refuses all others.

It shows only whole frames of synchronized output (DEC mode 2026), so that a test never reads a half-drawn screen.
"""

import codecs
import re

_TOKEN = re.compile(r"\x1b\[(?P<arguments>[?0-9;]*)(?P<command>[A-Za-z])|(?P<text>[^\x1b])")
_UNFINISHED = re.compile(r"\x1b(?:\[[?0-9;]*)?$")


class Screen:
    """`feed` it what the program writes; `text` is what a person sees."""

    def __init__(self, columns: int, rows: int) -> None:
        self._columns = columns
        self._cells = [[" "] * columns for _ in range(rows)]
        self._row = self._column = 0
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._rest = ""
        self._frame: str | None = None

    def text(self) -> str:
        return self._frame if self._frame is not None else self._drawn()

    def _drawn(self) -> str:
        return "\n".join("".join(row).rstrip() for row in self._cells)

    def feed(self, written: bytes) -> None:
        text = self._rest + self._decode(written)
        unfinished = _UNFINISHED.search(text)
        self._rest = unfinished.group() if unfinished else ""
        text = text.removesuffix(self._rest) if self._rest else text
        position = 0
        while position < len(text):
            token = _TOKEN.match(text, position)
            assert token, f"unknown escape sequence: {text[position : position + 20]!r}"
            position = token.end()
            if token["command"]:
                self._command(token["command"], token["arguments"])
            else:
                self._write(token["text"])

    def _command(self, command: str, arguments: str) -> None:
        match command:
            case "h" | "l" if arguments == "?2026":
                self._frame = self._drawn() if command == "h" else None
            case "m" | "h" | "l":  # colours; other modes
                pass
            case "H":
                row, _, column = arguments.partition(";")
                self._row, self._column = int(row or 1) - 1, int(column or 1) - 1
            case "A":
                self._row -= int(arguments or 1)
            case "K":
                start = 0 if arguments == "2" else self._column
                self._cells[self._row][start:] = [" "] * (self._columns - start)
            case "J":
                self._cells = [[" "] * self._columns for _ in self._cells]
            case _:
                raise AssertionError(f"unknown command: {arguments}{command}")

    def _write(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            if self._row == len(self._cells) - 1:
                self._cells = [*self._cells[1:], [" "] * self._columns]
            else:
                self._row += 1
        elif character.isprintable() and self._column < self._columns:
            self._cells[self._row][self._column] = character
            self._column += 1
