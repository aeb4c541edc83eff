"""Text from any source is shown without harm to a terminal."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archisync.base.text import counted, escaped, printable

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=30)  # lone surrogates too


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Forlì €", "Forlì €"),
        ("a\nb\tc", "a b c"),
        ("\x1b[31m", "�[31m"),
        ("\x9b2J", "�2J"),
        ("a\u202eb", "a�b"),
        ("\ud800", "�"),
        ("x" * 2001, "x" * 1999 + "…"),
    ],
)
def test_hidden_characters_become_visible_and_long_text_is_cut(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(ANY_TEXT)
def test_any_text_becomes_one_harmless_line_that_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(c) for c in shown} & HIDDEN
    assert printable(shown) == shown
    shown.encode("utf-8")


@given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3))
def test_escaped_json_is_the_same_document_without_hidden_characters(document: dict[str, str]) -> None:
    line = escaped(json.dumps(document, ensure_ascii=False))
    assert json.loads(line) == document
    assert not {unicodedata.category(c) for c in line} & HIDDEN
    line.encode("utf-8")


def test_hidden_character_beyond_the_first_plane_is_escaped_as_a_surrogate_pair() -> None:
    assert escaped('"\U000e0041"') == '"\\udb40\\udc41"'
    assert json.loads(escaped('"\U000e0041"')) == "\U000e0041"


@pytest.mark.parametrize(("number", "shown"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1_000_000, "1000000 rows")])
def test_count_takes_the_singular_or_plural(number: int, shown: str) -> None:
    assert counted(number, "row") == shown


def test_irregular_plural_is_given() -> None:
    assert [counted(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]
