"""The grid of a printed table, found from what is drawn on its page.

A ruled line may be drawn as a line, as a side of a rectangle, as an edge of a fill, or as a part of one long path.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, TypeVar

THIN = 2.5  # points: anything thinner is a line
SAME_LINE = 3.0  # points: lines nearer than this are one
COVERAGE = (
    0.45  # part of the table's height or width that a ruled line covers; not all, as a footer may span the columns
)
SIMPLE_PATH = 6  # points of a path that draws one line or rectangle; a rectangle has up to five

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top
Piece = tuple[Point, Point]  # a straight piece of a path
Path = tuple[Box, tuple[Piece, ...]]


class Line(NamedTuple):
    """A ruled line: its position, the total length of its pieces (twice what is drawn twice), and its ends."""

    at: float
    total: float
    start: float
    end: float


_Position = TypeVar("_Position")
_Edges = dict[float, list[float]]  # position → total length, start, end
_Sides = dict[tuple[float, float], list[float]]  # both positions of a rectangle's parallel sides → the same


@lru_cache(maxsize=16)
def find_grid(
    paper: tuple[float, float], boxes: tuple[Box, ...], paths: tuple[Path, ...]
) -> tuple[list[float], list[float]]:
    """Positions of the vertical lines from the left, and of the horizontal lines from the bottom.

    `paper` is the page's width and height, `boxes` are the outlines of simple paths, `paths` the paths of more than SIMPLE_PATH
    points. The last results are kept: all pages with rows of the same heights have one grid.
    """
    rulings = _Rulings(*paper)
    rulings.add_boxes(boxes)
    for box, pieces in paths:
        rulings.add_path(box, pieces)
    return rulings.grid()


class _Rulings:
    """The straight edges that are drawn on one page."""

    def __init__(self, width: float, height: float) -> None:
        self._width, self._height = width - 2 * SAME_LINE, height - 2 * SAME_LINE  # a box as large as this is the paper
        self._vertical: _Edges = {}
        self._horizontal: _Edges = {}
        self._columns: _Sides = {}
        self._rows: _Sides = {}

    def add_boxes(self, boxes: Iterable[Box]) -> None:
        """Paths that are one rectangle or line, by their outlines; a rectangle as large as the paper only colours it."""
        for box in boxes:
            left, bottom, right, top = box
            width, height = right - left, top - bottom
            if width <= THIN or height <= THIN:
                self._add_straight(box)
            elif width < self._width or height < self._height:
                _add_edge(self._columns, (left, right), height, bottom, top)
                _add_edge(self._rows, (bottom, top), width, left, right)

    def add_path(self, box: Box, pieces: Iterable[Piece]) -> None:
        """A path that draws many lines or rectangles, unless it is as thin as a line or as large as the paper."""
        left, bottom, right, top = box
        width, height = right - left, top - bottom
        if width <= THIN or height <= THIN or (width >= self._width and height >= self._height):
            self.add_boxes((box,))
            return
        for (x0, y0), (x1, y1) in pieces:
            self._add_straight((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))

    def grid(self) -> tuple[list[float], list[float]]:
        """Positions of the vertical and of the horizontal lines."""
        for edges, sides in ((self._vertical, self._columns), (self._horizontal, self._rows)):
            for (one, other), edge in sides.items():
                _add_edge(edges, one, *edge)
                _add_edge(edges, other, *edge)
        vertical, horizontal = _drawn(self._vertical), _drawn(self._horizontal)
        while _drop_outsiders(vertical, horizontal) or _drop_outsiders(horizontal, vertical):
            pass
        return _long(vertical), _long(horizontal)

    def _add_straight(self, box: Box) -> None:
        left, bottom, right, top = box
        width, height = right - left, top - bottom
        if width <= THIN < height:
            _add_edge(self._vertical, (left + right) / 2, height, bottom, top)
        elif height <= THIN < width:
            _add_edge(self._horizontal, (bottom + top) / 2, width, left, right)


def _add_edge(
    edges: dict[_Position, list[float]], position: _Position, length: float, start: float, end: float
) -> None:
    known = edges.get(position)
    if known is None:
        edges[position] = [length, start, end]
        return
    known[0] += length
    if start < known[1]:
        known[1] = start
    if end > known[2]:
        known[2] = end


def _drawn(edges: _Edges) -> list[Line]:
    """The lines that are drawn over enough of their length."""
    return [line for line in _lines(edges) if line.total >= COVERAGE * ((line.end - line.start) or 1.0)]


def _long(lines: list[Line]) -> list[float]:
    """Positions of the lines that cover enough of the table."""
    longest = max([line.end - line.start for line in lines], default=0.0) or 1.0
    return [line.at for line in lines if line.total >= COVERAGE * longest]


def _lines(edges: _Edges) -> list[Line]:
    """The lines by position; neighbouring edges are one line."""
    found = []
    total = weighted = first = last = 0.0
    before = float("-inf")
    for position, (length, start, end) in sorted(edges.items()):
        if position - before > SAME_LINE:
            if total:
                found.append(Line(weighted / total, total, first, last))
            total, weighted, first, last = length, position * length, start, end
        else:
            total += length
            weighted += position * length
            first, last = min(first, start), max(last, end)
        before = position
    if total:
        found.append(Line(weighted / total, total, first, last))
    return found


def _drop_outsiders(lines: list[Line], across: list[Line]) -> bool:
    """Remove an outermost line that most lines across it don't reach: a frame around the table, or a rule beside it."""
    for index in (0, -1):
        if not lines:
            return False
        at = lines[index].at
        reaching = [line for line in across if line.start - SAME_LINE <= at <= line.end + SAME_LINE]
        if 2 * len(reaching) <= len(across):
            del lines[index]
            return True
    return False
