"""An export that is the wrong one as a whole: one in another notation."""

from __future__ import annotations

from pathlib import Path

import pytest

from archisync.rules.config import Config
from archisync.store.database import Database
from tests.support.rows import sync
from tests.sync.conftest import Deliver

SERVICE = "service-account"
ITALIAN = ("1.234,56", *["1.234"] * 7, "8,50", "9,50")


def products(*prices: str) -> str:
    return "product_id,name,unit_price\n" + "".join(f'P{n},Name {n},"{price}"\n' for n, price in enumerate(prices))


@pytest.mark.parametrize("trigger", ["scheduled", "forced"])
@pytest.mark.parametrize("rows", [0, 10, 2100])
def test_numbers_in_the_other_notation_hold_before_any_is_stored(
    deliver: Deliver, connection: Database, rows: int, trigger: str
) -> None:
    """`1.234` would be one and a bit. Of a first load too, and however many prices are known."""
    if rows:
        deliver(products(*(f"{n}.50" for n in range(rows))), "products", agent=SERVICE)
    run = deliver(products(*ITALIAN, *["1.234"] * (rows - 10)), "products", agent=SERVICE, trigger=trigger)
    assert (run.state, run.reason) == ("held", "other-notation")
    assert run.message == (
        "unit_price: 3 numbers are written with a decimal comma, and the export is read with a decimal point: others may be misread"
    )
    assert run.hint == "if the ERP writes numbers so from now on, set ARCHISYNC_LOCALE_PRODUCTS=it"
    stored = connection.execute("select count(*) as n from shared.products where unit_price = 1.234").fetchone()
    assert stored == {"n": 0}


def test_a_decimal_point_is_the_other_notation_where_the_comma_is_usual(
    deliver: Deliver, connection: Database, csv_config: Config, exports: Path
) -> None:
    """`1.234` would be a thousand."""
    deliver(products("1", "2", "3"), "products", agent=SERVICE)
    config = Config.from_environment({**csv_config.environment, "ARCHISYNC_LOCALE": "it"})
    (exports / SERVICE / "products.csv").write_text(products("1.50", "2.50", "1.234"), "utf-8")
    run = sync(connection, config, "products", SERVICE)
    assert (run.reason, run.hint) == (
        "other-notation",
        "if the ERP writes numbers so from now on, set ARCHISYNC_LOCALE_PRODUCTS=iso",
    )


@pytest.mark.parametrize("known", [False, True])
def test_two_typing_errors_in_many_numbers_are_quarantined_as_ever(deliver: Deliver, known: bool) -> None:
    """Also where most lines are known, and not read again."""
    good = [f"{n}.50" for n in range(40)]
    if known:
        deliver(products(*good), "products", agent=SERVICE)
    run = deliver(products("0,50", "1,50", *good[2:]), "products", agent=SERVICE)
    assert (run.state, run.counts and run.counts.quarantined) == ("succeeded", 2)
