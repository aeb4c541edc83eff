"""Generated tables of every sync type, as an Italian company's ERP would export them: for what the guard must hold, and must not."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from archisync.rules.synctypes import SYNC_TYPES, Field, SyncType
from archisync.rules.values import Value

Row = dict[str, Value]
TODAY = date(2026, 5, 5)
_FIRST = "Anna Luca Giulia Marco Sofia Nicolò Chiara Désirée Paolo Elena Mattia François Ilaria Günther".split()  # noqa: SIM905
_LAST = "Rossi Bianchi Pelù Romano Conti Esposito Niccolò Greco Müller Gallo Costa Lorè Mancini Zanè".split()  # noqa: SIM905
_FORMS = ["S.r.l.", "S.p.A.", "& Figli", "di Pelù", "Società cooperativa", "Caffè", "Forniture", "Snc"]
_CITIES = [
    ("Milano", "MI", "20100"), ("Roma", "RM", "00100"), ("Forlì", "FC", "47121"), ("Torino", "TO", "10100"), ("Cantù", "CO", "22063"),
    ("Napoli", "NA", "80100"), ("Città di Castello", "PG", "06012"), ("Bari", "BA", "70100"), ("Verona", "VR", "37100"),
    ("San Donà di Piave", "VE", "30027"), ("Genova", "GE", "16100"), ("Palermo", "PA", "90100"),
]  # fmt: skip
_STREETS = ["Via Roma", "Corso Italia", "Via Niccolò Tommaseo", "Piazza Unità", "Via Verdi", "Viale Libertà", "Via Po"]
_GOODS = [
    "Caffè macinato",
    "Tè verde",
    "Pasta",
    "Olio",
    "Sale",
    "Zucchero",
    "Farina",
    "Miele",
    "Ragù",
    "Aceto",
    "Tonno",
]


class Generator:
    """Rows of a type, the same for the same seed. Numbers are made so that each value has its own history."""

    def __init__(self, sync_type: SyncType, size: int, seed: int) -> None:
        self.type = sync_type
        self._size = size
        self._random = random.Random(f"{sync_type.name} {size} {seed}")

    def rows(self) -> list[Row]:
        return [self._row(n) for n in range(self._size)]

    def _row(self, n: int) -> Row:
        city, region, code = self._random.choice(_CITIES)
        who = f"{self._random.choice(_FIRST)} {self._random.choice(_LAST)}"
        shared: Row = {
            "name": f"{who} {self._random.choice(_FORMS)}",
            "contact": f"{self._random.choice(_FIRST)} {self._random.choice(_LAST)}",
            "city": city,
            "region": region,
            "postal_code": code,
            "street": f"{self._random.choice(_STREETS)} {self._random.randint(1, 99)}",
            "country": "Italia",
        }
        shared["delivery_address"] = f"{shared['street']}, {code} {city}"
        for name in ("customer_name", "delivery_name", "billing_name", "account_description"):
            shared[name] = f"{who} {self._random.choice(_FORMS)}"
        return {field.name: self._value(field, n, shared) for field in self.type.fields}

    def _value(self, field: Field, n: int, shared: Row) -> Value:
        make = _BY_FIELD.get((self.type.name, field.name)) or _BY_FIELD.get(("", field.name))
        if make is not None:
            return make(self._random, n)
        if field.name in shared and not (self.type.name == "products" and field.name == "name"):
            return shared[field.name]
        return _BY_KIND[field.kind.value](self._random, n)


Make = Callable[[random.Random, int], Value]


def _day(back: int, ahead: int) -> Make:
    return lambda r, _: TODAY + timedelta(days=r.randint(-back, ahead))


def _money(low: int, high: int) -> Make:
    return lambda r, _: Decimal(r.randint(low * 100, high * 100)) / 100


def _one(*values: Value, empty: float = 0.0) -> Make:
    return lambda r, _: None if r.random() < empty else r.choice(values)


def _some(make: Make, empty: float) -> Make:
    return lambda r, n: None if r.random() < empty else make(r, n)


def _moment(r: random.Random, _: int) -> Value:
    return datetime(2026, 5, 5, tzinfo=UTC) - timedelta(days=r.randint(0, 500), minutes=r.randint(0, 1000))


def _phone(r: random.Random, _: int) -> Value:
    return f"0{r.randint(2, 99)} {r.randint(1000000, 9999999)}"


_BY_KIND: dict[str, Make] = {
    "text": lambda r, _: f"{r.choice(_GOODS)} {r.randint(1, 999)}",
    "identifier": lambda r, n: f"{r.randint(10**6, 10**7 - 1)}",
    "number": _money(1, 900),
    "integer": lambda r, _: r.randint(1, 400),
    "date": _day(300, 60),
    "timestamp": _moment,
    "boolean": _one(True, True, False),
}
_BY_FIELD: dict[tuple[str, str], Make] = {
    ("", "customer_id"): lambda r, n: f"C{n:05}",
    ("", "order_id"): lambda r, n: f"{70000 + n}",
    ("", "order_number"): lambda r, n: f"ORD/{26000 + n}",
    ("", "ddt_number"): lambda r, n: f"DDT/{9000 + n}",
    ("", "ddt_id"): lambda r, n: f"{30000 + n}",
    ("", "invoice_number"): lambda r, n: f"INV/{4000 + n}",
    ("", "product_id"): lambda r, n: f"P{n:05}",
    ("", "account_code"): _one("", "", "A1", "A2"),
    ("", "valid_from"): lambda r, n: date(2026, 1, 1) if n % 2 else None,
    ("", "quantity_from"): lambda r, n: Decimal(n % 3 * 10),
    ("", "fiscal_code"): lambda r, n: f"RSS{r.randint(10, 99)}A{r.randint(1000, 9999)}K",
    ("", "vat_number"): lambda r, n: f"{r.randint(10**10, 10**11 - 1)}",
    ("", "sdi_code"): lambda r, n: f"{r.choice('KMXW')}{r.randint(10000, 99999)}Z",
    ("", "pec"): lambda r, n: f"pec{r.randint(1, 9999)}@pec.example",
    ("", "email"): _some(lambda r, n: f"info{n}@example{r.randint(1, 99)}.it", 0.1),
    ("", "phone"): _phone,
    ("", "mobile"): _some(lambda r, n: f"3{r.randint(20, 99)} {r.randint(10**6, 10**7 - 1)}", 0.2),
    ("", "fax"): _some(_phone, 0.5),
    ("", "url"): _some(lambda r, n: f"https://www.example{n}.it", 0.3),
    ("", "delivery_terms"): _one("porto franco", "franco fabbrica", "porto assegnato"),
    ("", "customer_type"): _one("A", "B", "C"),
    ("", "status"): _one("aperto", "consegnato", "fatturato", "chiuso"),
    ("", "order_type"): _one("vendita", "reso", "campione"),
    ("", "document_status"): _one("nessuno", "conferma", "fattura"),
    ("", "transfer_status"): _one("trasferito", "in attesa"),
    ("", "transfer_date"): _some(_day(200, 0), 0.2),
    ("", "completion_date"): _some(_day(200, 0), 0.4),
    ("", "discount_percent"): _one(*(Decimal(d) for d in (0, 5, 10, 15))),
    ("", "customer_reference"): _some(lambda r, n: f"Rif. {r.randint(1, 9999)}/{r.choice('ABC')}", 0.2),
    ("", "courier"): _one("FedEx", "UPS", "DHL", "BRT"),
    ("", "tracking_number"): lambda r, n: f"1Z{r.randint(10**9, 10**10 - 1)}",
    ("", "tracking_url"): lambda r, n: f"https://track.example/1Z{r.randint(10**9, 10**10 - 1)}",
    ("", "delivery_method"): _one("corriere", "ritiro", "mezzo proprio"),
    ("", "quantity"): lambda r, _: Decimal(r.randint(1, 300)),
    ("", "payment_terms"): _one("30 gg", "60 gg", "90 gg", "rimessa diretta"),
    ("", "last_settlement_date"): _some(_day(200, 0), 0.3),
    ("", "group_code"): _one("G1", "G2", "G3", "G4", "G5", "G6"),
    ("", "group_name"): _one("Caffè", "Tè", "Dolci", "Salse", "Pasta", "Olio"),
    ("", "group_description"): _one("Caffè e miscele", "Tè e tisane", "Dolci", "Salse", "Pasta", "Olio"),
    ("", "price_unit"): _one("pz", "kg", "ct"),
    ("", "unit"): _one("pz", "kg", "l"),
    ("", "size"): lambda r, n: f"{r.randint(1, 60)}x{r.randint(1, 60)} cm",
    ("", "currency"): _one("EUR"),
    ("", "discontinued"): _one(False, False, False, True),
    ("", "units_in_stock"): lambda r, _: Decimal(r.randint(0, 400)),
    ("", "min_quantity"): _one(*(Decimal(q) for q in (1, 5, 6, 10, 12, 24))),
    ("", "multiple_quantity"): _one(*(Decimal(q) for q in (1, 5, 6, 10, 12))),
    ("", "max_quantity"): _some(lambda r, n: Decimal(r.randint(100, 9999)), 0.2),
    ("", "valid_to"): _some(_day(0, 500), 0.3),
    ("", "quantity_to"): _some(lambda r, n: Decimal(r.randint(10, 9999)), 0.3),
}


def table(type_name: str, size: int, seed: int = 0) -> list[Row]:
    """Rows of that type with distinct keys."""
    return Generator(SYNC_TYPES[type_name], size, seed).rows()
