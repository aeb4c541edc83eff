"""An export that is the wrong one as a whole: another agent's, or one in another notation."""

from __future__ import annotations

from pathlib import Path

import pytest

from archisync.rules.config import Config
from archisync.store import held
from archisync.store.database import Database
from tests.support.rows import sync
from tests.sync.conftest import AGENT, Deliver

SERVICE = "service-account"
ITALIAN = ("1.234,56", *["1.234"] * 7, "8,50", "9,50")


OTHER = "luca.ferrari"


def orders(*numbers: int, amount: str = ".50") -> str:
    rows = (f"{n},2026-05-0{n % 9 + 1},{n}{amount}\n" for n in numbers)
    return "order_id,created_at,total_amount\n" + "".join(rows)


def test_the_bytes_of_another_agent_are_held(deliver: Deliver) -> None:
    """Both may have the same keys, so that no row vanishes."""
    text = orders(1, 2, 3, 4, 5)
    deliver(text, "orders", agent=OTHER)
    deliver(orders(1, 2, 3, 4, 5, amount=".75"), "orders")
    run = deliver(text, "orders")
    assert (run.state, run.reason) == ("held", "another-agents")
    assert run.message == f"the export is byte by byte the one that was applied for {OTHER}"


@pytest.mark.parametrize("first", [OTHER, AGENT])
def test_agents_whose_first_exports_are_the_same_share_them(deliver: Deliver, first: str) -> None:
    """Whoever gets the next one first."""
    for agent in (OTHER, AGENT):
        assert deliver(orders(1, 2, 3), "orders", agent=agent).state == "succeeded"
    second = AGENT if first == OTHER else OTHER
    for amount in (".75", ".85"):
        for agent in (first, second):
            assert deliver(orders(1, 2, 3, amount=amount), "orders", agent=agent).state == "succeeded"


@pytest.mark.parametrize("known", ["the other one's second", "a third one's"])
def test_a_first_export_is_not_taken_from_another_agent(deliver: Deliver, connection: Database, known: str) -> None:
    """An agent who is new gets the file of one who has long had others; or all agents have their own."""
    if known == "a third one's":
        deliver(orders(7, 8, 9), "orders", agent="third")
    else:
        deliver(orders(1, 2, 3, amount=".25"), "orders", agent=OTHER)
    deliver(orders(1, 2, 3), "orders", agent=OTHER)
    run = deliver(orders(1, 2, 3), "orders")
    assert (run.state, run.reason) == ("held", "another-agents")
    held.decide(connection, run.run_id, accept=True, by="anna", why="they work together")
    assert deliver(orders(1, 2, 3), "orders").state == "succeeded"
    for agent in (OTHER, AGENT):
        assert deliver(orders(1, 2, 3, amount=".85"), "orders", agent=agent).state == "succeeded"


def test_a_forced_run_of_the_first_export_leaves_it_the_first(deliver: Deliver) -> None:
    deliver(orders(1, 2, 3), "orders", agent=OTHER)
    deliver(orders(1, 2, 3), "orders", agent=OTHER, trigger="forced")
    assert deliver(orders(1, 2, 3), "orders").state == "succeeded"


def test_who_shares_with_one_may_still_not_have_a_third_one_s(deliver: Deliver) -> None:
    for agent in (OTHER, AGENT):
        deliver(orders(1, 2, 3), "orders", agent=agent)
    deliver(orders(4, 5, 6), "orders", agent="third")
    assert deliver(orders(1, 2, 3), "orders", agent="third").reason == "another-agents"


def test_empty_first_exports_are_not_shared(deliver: Deliver) -> None:
    for agent in (OTHER, AGENT):
        deliver(orders(), "orders", agent=agent)
    deliver(orders(1, 2, 3, amount=".75"), "orders")
    deliver(orders(1, 2, 3), "orders", agent=OTHER)
    assert deliver(orders(1, 2, 3), "orders").reason == "another-agents"


def test_agents_who_begin_to_share_an_export_are_asked_about_once(deliver: Deliver, connection: Database) -> None:
    deliver(orders(1, 2, 3, amount=".75"), "orders")
    deliver(orders(1, 2, 3), "orders", agent=OTHER)
    run = deliver(orders(1, 2, 3), "orders")
    assert run.reason == "another-agents"
    held.decide(connection, run.run_id, accept=True, by="anna", why="they work together")
    assert deliver(orders(1, 2, 3), "orders").state == "succeeded"
    for agents in ((OTHER, AGENT), (AGENT, OTHER)):
        for agent in agents:
            text = orders(1, 2, 3, amount=".85" if agents[0] == OTHER else ".95")
            assert deliver(text, "orders", agent=agent).state == "succeeded"


known_orders = orders


def changed(text: str, *places: int) -> str:
    lines = text.splitlines(keepends=True)
    for place in places:
        lines[place] = lines[place].replace(".", "9.")
    return "".join(lines)


@pytest.mark.usefixtures("compared_in")
@pytest.mark.parametrize("unknown", ["", ",x"])
@pytest.mark.parametrize("history", ["one export", "small changes", "all changed"])
def test_a_first_export_that_is_nearly_another_agents_is_held(
    deliver: Deliver, connection: Database, history: str, unknown: str
) -> None:
    """Some rows more, some less, and some others. It is loaded or, with an unknown column, compared in memory or in the database."""

    def orders(*numbers: int, amount: str = ".50") -> str:
        return known_orders(*numbers, amount=amount).replace("\n", f"{unknown}\n")

    text = orders(*range(10, 50))
    deliver(orders(*range(70, 90)), "orders", agent="third")
    if history != "one export":
        deliver(
            orders(*range(10, 50), amount=".25") if history == "all changed" else changed(text, 5, 15, 25),
            "orders",
            agent=OTHER,
        )
    deliver(text, "orders", agent=OTHER)
    # The row with the least digest finds the other agent. Which one that is changes with each version of what reads a line.
    least = "select order_id from agents.orders where agent_id = %s and line_digest is not null order by line_digest limit 1"
    found_by = connection.execute(least, [OTHER]).fetchone()
    assert found_by is not None
    first, second, third = [number for number in range(11, 15) if f"{number}" != found_by["order_id"]][:3]
    near = changed(text, first - 9, second - 9).replace(f"\n{third},", "\n51,", 1)
    run = deliver(near, "orders")
    assert (run.state, run.reason) == ("held", "another-agents")
    assert run.message == f"37 of 40 rows of this first export are those of {OTHER}, to the letter"
    held.decide(connection, run.run_id, accept=True, by="anna", why="she has her customers now")
    assert deliver(near, "orders").state == "succeeded"
    assert deliver(text, "orders").state == "succeeded"


def test_a_first_export_with_less_than_half_of_anothers_rows_is_applied(deliver: Deliver) -> None:
    """And one that is like the only other agent's: it looks as if all had shared it from the start."""
    deliver(orders(*range(10, 50)), "orders", agent=OTHER)
    assert deliver(orders(*range(11, 52)), "orders").state == "succeeded"
    assert deliver(orders(*range(10, 30), *range(60, 90)), "orders", agent="third").state == "succeeded"


@pytest.mark.parametrize(
    ("columns", "figures", "reason"), [("", "", "applied"), (",orders_count", ",7", "another-agents")]
)
def test_customers_without_figures_may_be_the_same_for_two_agents(
    deliver: Deliver, columns: str, figures: str, reason: str
) -> None:
    def customers(name: str) -> str:
        return f"customer_id,name{columns}\n" + "".join(f"C{n},{name} {n}{figures}\n" for n in range(9))

    deliver(customers("A"), agent=OTHER)
    deliver(customers("B"))
    deliver(customers("C"), agent=OTHER)
    assert deliver(customers("C")).reason == reason


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
