"""The texts in the cells of a ruled table. Texts outside the table, such as titles and page numbers, are left out."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from archisync.formats.pdf.grid import Box

Rows = list[list[str]]

_OVERHANG = 1.0  # points by which glyphs may reach over a line
_PADDING = 8.0  # points between a cell's edge and a text aligned to it
_ROOM = 0.14  # part of the line's height: more room between two texts is a blank
_SAME_PLACE = 1.0  # points: a text that is drawn again this near is bold


class Character(NamedTuple):
    """A character. `ink` is where it is drawn, `place` the room that it takes in its line."""

    ink: Box
    place: Box
    text: str


class Text(NamedTuple):
    """A text and where it is drawn. `item` is the object that draws the text, or 0 for a part of what an object draws."""

    box: Box
    text: str
    item: int = 0


class Cells:
    """The cells between the vertical lines at `xs`, from the left, and the horizontal lines at `ys`, from the bottom.

    `characters` returns the characters of a text object in drawing order. It is called for few texts, as it takes time.
    """

    def __init__(self, xs: list[float], ys: list[float], characters: Callable[[int], list[Character]]) -> None:
        self._xs, self._ys = xs, ys
        self._characters = characters

    def rows(self, texts: Iterable[Text]) -> Rows:
        """The rows of the table, top row first."""
        xs, ys = self._xs, self._ys
        columns, lines = len(xs) - 1, len(ys) - 1
        cells: list[list[Text]] = [[] for _ in range(columns * lines)]
        for text in texts:
            (left, bottom, right, top), string, _ = text
            if not string:
                continue
            row = lines - bisect_right(ys, (bottom + top) / 2)
            if not 0 <= row < lines or right <= xs[0] + _OVERHANG or left >= xs[-1] - _OVERHANG:
                continue
            column = bisect_right(xs, min(left + _OVERHANG, (left + right) / 2)) - 1
            if 0 <= column < columns and right - _OVERHANG <= xs[column + 1]:
                cells[row * columns + column].append(text)
                continue
            for part_column, part in self._parts(text):
                if 0 <= part_column < columns:
                    cells[row * columns + part_column].append(part)
        joined = [self._joined(texts) if texts else "" for texts in cells]
        return [joined[start : start + columns] for start in range(0, columns * lines, columns)]

    def _parts(self, text: Text) -> Iterator[tuple[int, Text]]:
        """The columns and parts of a text that reaches over a ruled line.

        Several cells drawn as one text are cut where there is a gap at the line. A text too long for its cell stays whole, in
        the cell that it is aligned to. Blanks around a text don't count.
        """
        xs = self._xs
        parts = _cut(self._characters(text.item), xs)
        if len(parts) > 1:
            for part in parts:
                yield bisect_right(xs, (part.box[0] + part.box[2]) / 2) - 1, part
            return
        left, _, right, _ = parts[0].box if parts else text.box
        if right <= xs[0] + _OVERHANG or left >= xs[-1] - _OVERHANG:
            return
        first = bisect_right(xs, min(left + _OVERHANG, (left + right) / 2)) - 1
        last = min(bisect_right(xs, right - _OVERHANG) - 1, len(xs) - 2)
        aligned_left = first == last or first < 0 or left - xs[first] <= _PADDING
        yield max(first, 0) if aligned_left else last, text._replace(box=(left, text.box[1], right, text.box[3]))

    def _joined(self, texts: list[Text]) -> str:
        """The texts of one cell, by line from the top and in a line from the left, with blanks where there is room for one."""
        if len(texts) == 1:
            return " ".join(texts[0].text.split())
        lines: list[list[Text]] = []
        for text in sorted(texts, key=lambda text: -(text.box[1] + text.box[3])):
            middle = (text.box[1] + text.box[3]) / 2
            if lines and any(other.box[1] - 1.0 <= middle <= other.box[3] + 1.0 for other in lines[-1]):
                lines[-1].append(text)
            else:
                lines.append([text])
        return " ".join(" ".join(self._in_one_line(line).split()) for line in lines)

    def _in_one_line(self, texts: list[Text]) -> str:
        if len(texts) == 1:
            return texts[0].text
        placed = sorted((self._place(text), text.text) for text in texts)
        parts = [placed[0][1]]
        for (before, text_before), (place, text) in pairwise(placed):
            if text == text_before and place[0] - before[0] < _SAME_PLACE:
                continue
            if place[0] - before[2] > _ROOM * max(before[3] - before[1], place[3] - place[1]):
                parts.append(" ")
            parts.append(text)
        return "".join(parts)

    def _place(self, text: Text) -> Box:
        """The room that a text takes in its line. Its ink alone takes less, and the rest would look like a blank."""
        places = [c.place for c in self._characters(text.item) if not c.text.isspace()] if text.item else []
        if not places:
            return text.box
        return (
            min(place[0] for place in places),
            min(place[1] for place in places),
            max(place[2] for place in places),
            max(place[3] for place in places),
        )


def _cut(characters: list[Character], xs: list[float]) -> list[Text]:
    """Characters joined to a text for each cell; blanks between cells belong to none."""
    parts: list[Text] = []
    column = None
    for box, _, text in characters:
        if text.isspace():
            if parts:
                parts[-1] = parts[-1]._replace(text=parts[-1].text + " ")
            continue
        at = bisect_right(xs, (box[0] + box[2]) / 2) - 1
        if parts and (at == column or box[0] - parts[-1].box[2] < 1.0):
            last, before = parts[-1], parts[-1].box
            box = before[0], min(before[1], box[1]), box[2], max(before[3], box[3])
            parts[-1] = Text(box, last.text + text)
        else:
            parts.append(Text(box, text))
        column = at
    return [part._replace(text=part.text.strip()) for part in parts]
