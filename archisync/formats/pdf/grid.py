"""The grid of a printed table, found from what is drawn on its page: lines, rectangles, edges of fills, long paths.

Both readers of `archisync.formats.pdf.pages` use it, so they can't differ in what a cell is.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

THIN = 2.5  # points: anything thinner is a line
SAME_LINE = 3.0  # points: two ruled lines nearer than this are one
COVERAGE = 0.45  # of the table's height or width that a ruled line covers at least; a footer row may span all columns
SIMPLE_PATH = 6  # points of a path; a rectangle has up to five
NEAR = 0.3  # points: two readers may differ by this in where a line is
NEAR_SHARE = 0.03  # the same for `COVERAGE`

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top
Piece = tuple[Point, Point]  # a straight piece of a path


class Line(NamedTuple):
    """A ruled line: its position, the total length of its pieces (pieces drawn twice count twice), and its ends."""

    at: float
    total: float
    start: float
    end: float


_Edges = dict[float, list[float]]  # position → total length, start, end
_Sides = dict[tuple[float, float], list[float]]  # both positions of a rectangle's parallel sides → the same


class Rulings:
    """What is drawn on one page. `close_call`: a threshold was met so narrowly that another reader may decide otherwise."""

    def __init__(self, width: float, height: float) -> None:
        self._width, self._height = width, height  # of the paper
        self._vertical: _Edges = {}
        self._horizontal: _Edges = {}
        self._columns: _Sides = {}
        self._rows: _Sides = {}
        self.close_call = False

    def add_boxes(self, boxes: Iterable[Box]) -> None:
        """Outlines of paths that are a rectangle or a line."""
        columns, rows = self._columns, self._rows
        width_of_paper, height_of_paper = self._width - 2 * SAME_LINE, self._height - 2 * SAME_LINE
        for box in boxes:
            left, bottom, right, top = box
            width, height = right - left, top - bottom
            if width < THIN + NEAR or height < THIN + NEAR:
                self._add_narrow(box)
                continue
            if width >= width_of_paper and height >= height_of_paper:
                continue  # the paper's own colour
            # As `_add_edge`, but once for both sides: most of the time of a table that is drawn cell by cell.
            known = columns.get((left, right))
            if known is None:
                columns[left, right] = [height, bottom, top]
            else:
                known[0] += height
                if bottom < known[1]:
                    known[1] = bottom
                if top > known[2]:
                    known[2] = top
            known = rows.get((bottom, top))
            if known is None:
                rows[bottom, top] = [width, left, right]
            else:
                known[0] += width
                if left < known[1]:
                    known[1] = left
                if right > known[2]:
                    known[2] = right

    def add_path(self, box: Box, points: int, pieces: Callable[[], Iterable[Piece]]) -> None:
        """A path of that many points within `box`; its straight pieces are asked for when it draws more than one rectangle."""
        left, bottom, right, top = box
        width, height = right - left, top - bottom
        paper = width >= self._width - 2 * SAME_LINE and height >= self._height - 2 * SAME_LINE
        if points <= SIMPLE_PATH or width <= THIN or height <= THIN or paper:
            self.add_boxes((box,))
            return
        for one, other in pieces():
            self._add_straight(one, other)

    def grid(self) -> tuple[list[float], list[float]]:
        """Positions of the vertical lines from the left and of the horizontal ones from the bottom."""
        for edges, sides in ((self._vertical, self._columns), (self._horizontal, self._rows)):
            for (one, other), edge in sides.items():
                _add_edge(edges, one, *edge)
                _add_edge(edges, other, *edge)
        vertical, horizontal = self._drawn(self._vertical), self._drawn(self._horizontal)
        while _drop_outsiders(vertical, horizontal) or _drop_outsiders(horizontal, vertical):
            pass
        return self._long(vertical), self._long(horizontal)

    def _add_narrow(self, box: Box) -> None:
        left, bottom, right, top = box
        width, height = right - left, top - bottom
        if min(width, height) > THIN - NEAR:
            self.close_call = True
        if width <= THIN:
            if height > THIN:
                _add_edge(self._vertical, (left + right) / 2, height, bottom, top)
        elif height <= THIN:
            _add_edge(self._horizontal, (bottom + top) / 2, width, left, right)
        else:
            for at in (left, right):
                _add_edge(self._vertical, at, height, bottom, top)
            for at in (bottom, top):
                _add_edge(self._horizontal, at, width, left, right)

    def _add_straight(self, one: Point, other: Point) -> None:
        width, height = abs(one[0] - other[0]), abs(one[1] - other[1])
        if width <= THIN < height:
            _add_edge(self._vertical, (one[0] + other[0]) / 2, height, min(one[1], other[1]), max(one[1], other[1]))
        elif height <= THIN < width:
            _add_edge(self._horizontal, (one[1] + other[1]) / 2, width, min(one[0], other[0]), max(one[0], other[0]))

    def _drawn(self, edges: _Edges) -> list[Line]:
        """The lines that are drawn over a good part of their length."""
        lines = self._lines(edges)
        return self._covered(lines, [line.total / ((line.end - line.start) or 1.0) for line in lines])

    def _long(self, lines: list[Line]) -> list[float]:
        """Where the lines are that go over a good part of the table."""
        longest = max([line.end - line.start for line in lines], default=0.0) or 1.0
        return [line.at for line in self._covered(lines, [line.total / longest for line in lines])]

    def _covered(self, lines: list[Line], shares: list[float]) -> list[Line]:
        if any([abs(share - COVERAGE) < NEAR_SHARE for share in shares]):  # noqa: C419 - a list is faster
            self.close_call = True
        return [line for line, share in zip(lines, shares, strict=True) if share >= COVERAGE]

    def _lines(self, edges: _Edges) -> list[Line]:
        """The lines in order of their position; edges that lie together are one."""
        found = []
        total = weighted = first = last = 0.0
        before = float("-inf")
        for position, (length, start, end) in sorted(edges.items()):
            room = position - before
            before = position
            if SAME_LINE - NEAR < room < SAME_LINE + NEAR:
                self.close_call = True
            if room > SAME_LINE:
                if total:
                    found.append(Line(weighted / total, total, first, last))
                total, weighted, first, last = length, position * length, start, end
                continue
            total += length
            weighted += position * length
            if start < first:
                first = start
            if end > last:
                last = end
        if total:
            found.append(Line(weighted / total, total, first, last))
        return found


def _add_edge(edges: _Edges, position: float, length: float, start: float, end: float) -> None:
    known = edges.get(position)
    if known is None:
        edges[position] = [length, start, end]
        return
    known[0] += length
    if start < known[1]:
        known[1] = start
    if end > known[2]:
        known[2] = end


def _drop_outsiders(lines: list[Line], across: list[Line]) -> bool:
    """Take away an outermost line that most lines across don't reach: a frame around the table, a rule beside it."""
    for index in (0, -1):
        if not lines:
            return False
        at = lines[index].at
        reaching = [line for line in across if line.start - SAME_LINE <= at <= line.end + SAME_LINE]
        if 2 * len(reaching) <= len(across):
            del lines[index]
            return True
    return False
