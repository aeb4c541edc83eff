"""The built-in types; and as JSON, made of their TOML files: `python -m tests.support.builtintypes` writes the file (`make fix` does)."""

import json
import tomllib

from archisync.rules.synctypes import BUILT_IN, SYNC_TYPES

ORDERS, CUSTOMERS, DDT = SYNC_TYPES["orders"], SYNC_TYPES["customers"], SYNC_TYPES["ddt"]
INVOICES, PRODUCTS, PRICES = SYNC_TYPES["invoices"], SYNC_TYPES["products"], SYNC_TYPES["prices"]

JSON_FILE = BUILT_IN / "built_in.json"


def as_json() -> str:
    documents = [tomllib.loads(path.read_text("utf-8")) for path in sorted(BUILT_IN.glob("*.toml"))]
    return json.dumps(documents, ensure_ascii=False, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    JSON_FILE.write_text(as_json(), "utf-8")
