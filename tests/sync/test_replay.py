"""Old exports, judged one after the other."""

from __future__ import annotations

import os
from pathlib import Path

from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store.database import Database
from archisync.sync.preview import replay
from tests.support.rows import fingerprint
from tests.sync.conftest import AGENT, Deliver


def orders(*numbers: int, amount: str = ".50") -> str:
    rows = (f"{n},2026-05-0{n % 9 + 1},{n}{amount}\n" for n in numbers)
    return "order_id,created_at,total_amount\n" + "".join(rows)


def test_each_old_export_is_judged_against_the_last_one_that_would_not_be_held(
    deliver: Deliver, connection: Database, csv_config: Config, tmp_path: Path, compared_in: str
) -> None:
    """In the order of the files' times. What is known today plays no part, and stays."""
    deliver(orders(7, 8, 9), "orders")
    before = fingerprint(connection, SYNC_TYPES["orders"])
    old = {
        "e": orders(*range(20, 60)),
        "d": orders(*range(20, 61), amount=".75"),
        "c": orders(*range(20, 61), amount="75"),
        "b": "order_id,total_amount\n",
        "a": orders(*range(20, 62), amount=".85"),
    }
    folder = tmp_path / "old"
    folder.mkdir()
    for day, (name, text) in enumerate(old.items()):
        (folder / name).write_text(text, "utf-8")
        os.utime(folder / name, (86_400 * day, 86_400 * day))
    found = list(replay(connection, csv_config, SYNC_TYPES["orders"], AGENT, folder))
    assert [(each.name, each.seen, each.hold and str(each.hold.rule)) for each in found] == [
        ("e", 40, None),
        ("d", 41, None),
        ("c", 41, "rescaled"),
        ("b", None, "missing-column"),
        ("a", 42, None),
    ]
    assert fingerprint(connection, SYNC_TYPES["orders"]) == before
