"""A line chart over a logarithmic axis of sizes, as SVG; too little for a library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 44, 52


def line_chart(title: str, x_label: str, y_label: str, points: Sequence[tuple[float, float]]) -> str:
    """`points` are (size, value), with rising sizes above 0. The axis of values begins at 0, so a flat line looks flat."""
    low, high = log10(points[0][0]), log10(points[-1][0])
    top = 1.5 * max(value for _, value in points)

    def place(size: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (log10(size) - low) / (high - low)
        return x, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 22, title, size=15),
        _line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM),
        _line(LEFT, TOP, LEFT, HEIGHT - BOTTOM),
        _text(WIDTH / 2, HEIGHT - 12, x_label, anchor="middle"),
        _text(LEFT - 8, TOP + 4, y_label, anchor="end"),
        _text(LEFT - 8, HEIGHT - BOTTOM + 4, "0", anchor="end"),
    ]
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    parts.append(f'<polyline points="{way}" fill="none" stroke="#2563eb" stroke-width="2"/>')
    for size, value in points:
        x, y = place(size, value)
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#2563eb"/>',
            _text(x, y - 10, f"{value:.1f}", anchor="middle"),
            _text(x, HEIGHT - BOTTOM + 18, f"{size:,.0f}", anchor="middle"),
        ]
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#444"/>'
