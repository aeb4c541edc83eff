"""The registry of sync types: what an export contains, which table it goes to, how often it is fetched.

To add a type, declare it here and write a migration; a test compares each declaration with the table in PostgreSQL. Everything that needs
"all types" (settings, tick, parser, apply, help texts) reads `SYNC_TYPES`.
"""

from dataclasses import dataclass
from enum import StrEnum

from archisync.base.errors import UsageError

SHARED_AGENT = "service-account"
"""The agent id that products and prices are fetched under; it is not in `agents.users`."""

MIN_INTERVAL_MINUTES = 5
MAX_INTERVAL_MINUTES = 1440


class Scope(StrEnum):
    AGENT = "agent"
    SHARED = "shared"


class Kind(StrEnum):
    """How a cell is read. NUMBER becomes a decimal, never a float; IDENTIFIER is opaque text, without thousands dots."""

    TEXT = "text"
    IDENTIFIER = "identifier"
    NUMBER = "number"
    INTEGER = "integer"
    DATE = "date"
    TIMESTAMP = "timestamp"
    BOOLEAN = "boolean"


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One column. `name` is the column in PostgreSQL and the standard label in exports.

    `aliases` are other labels, compared exactly after `archisync.sync.records.fold_label`. `empty` is the text that an empty cell stands
    for: a part of a key that has a default.
    """

    name: str
    kind: Kind = Kind.TEXT
    required: bool = False
    aliases: tuple[str, ...] = ()
    empty: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracking:
    """Fields that a printed report puts into one cell, that of `number`."""

    courier: str
    number: str
    url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncType:
    """One type of export. `level` orders the types of one tick: a type comes after those that it refers to.

    `key` are the fields of the natural key; those in `nullable_key` may be NULL, and NULL equals NULL.
    """

    name: str
    scope: Scope
    table: str
    default_interval_minutes: int
    level: int
    key: tuple[str, ...]
    fields: tuple[Field, ...]
    nullable_key: tuple[str, ...] = ()
    order_reference: str | None = None  # field with the order_number of an order of the same agent
    same_label: tuple[tuple[str, str], ...] = ()  # (field, field of the next column with the same label)
    report_ids: tuple[
        str, ...
    ] = ()  # a printed row without any of these is no record; default: the first field of the key
    tracking: Tracking | None = None

    @property
    def required(self) -> tuple[str, ...]:
        """Fields whose column must be in the export and whose cell must not be empty."""
        return tuple(f.name for f in self.fields if f.required)

    def field(self, name: str) -> Field:
        return next(f for f in self.fields if f.name == name)


def _text(name: str, *aliases: str, required: bool = False) -> Field:
    return Field(name=name, aliases=aliases, required=required)


def _id(name: str, *aliases: str, required: bool = False) -> Field:
    return Field(name=name, kind=Kind.IDENTIFIER, aliases=aliases, required=required)


def _num(name: str, *aliases: str, required: bool = False, empty: str | None = None) -> Field:
    return Field(name=name, kind=Kind.NUMBER, aliases=aliases, required=required, empty=empty)


def _int(name: str, *aliases: str) -> Field:
    return Field(name=name, kind=Kind.INTEGER, aliases=aliases)


def _date(name: str, *aliases: str) -> Field:
    return Field(name=name, kind=Kind.DATE, aliases=aliases)


def _time(name: str, *aliases: str, required: bool = False) -> Field:
    return Field(name=name, kind=Kind.TIMESTAMP, aliases=aliases, required=required)


def _bool(name: str, *aliases: str) -> Field:
    return Field(name=name, kind=Kind.BOOLEAN, aliases=aliases)


CUSTOMERS = SyncType(
    name="customers",
    scope=Scope.AGENT,
    table="agents.customers",
    default_interval_minutes=15,
    level=0,
    key=("customer_id",),
    fields=(
        _id("customer_id", "ID", "ID CLIENTE", "CODICE CLIENTE", required=True),
        _text("name", "NOME", "RAGIONE SOCIALE", required=True),
        _id("account_number", "CONTO", "NUMERO CONTO"),
        _id("vat_number", "PARTITA IVA"),
        _id("fiscal_code", "CODICE FISCALE"),
        _id("sdi_code", "CODICE SDI", "SDI"),
        _text("pec", "INDIRIZZO PEC"),
        _text("email", "E-MAIL", "POSTA ELETTRONICA"),
        _text("phone", "TELEFONO"),
        _text("mobile", "CELLULARE"),
        _text("fax"),
        _text("url", "SITO WEB"),
        _text("contact", "REFERENTE", "ALL'ATTENZIONE DI"),
        _text("street", "VIA", "INDIRIZZO"),
        _id("postal_code", "CAP"),
        _text("city", "CITTÀ"),
        _text("region", "PROVINCIA", "REGIONE"),
        _text("country", "PAESE", "NAZIONE"),
        _text("delivery_terms", "TERMINI DI CONSEGNA"),
        _text("customer_type", "TIPO CLIENTE"),
        _date("last_order_date", "DATA ULTIMO ORDINE"),
        _int("orders_count", "NUMERO ORDINI", "CONTEGGIO ORDINI"),
        _num("sales_amount", "FATTURATO", "IMPORTO VENDITE"),
    ),
)

ORDERS = SyncType(
    name="orders",
    scope=Scope.AGENT,
    table="agents.orders",
    default_interval_minutes=10,
    level=0,
    key=("order_id",),
    fields=(
        _id("order_id", "ID", "ID ORDINE", required=True),
        _id("order_number", "NUMERO ORDINE", "ID DI VENDITA"),
        _id("customer_id", "ID CLIENTE", "CODICE CLIENTE", "PROFILO CLIENTE"),
        _text("customer_name", "NOME CLIENTE", "RAGIONE SOCIALE"),
        _text("delivery_name", "NOME CONSEGNA", "NOME DI CONSEGNA"),
        _text("delivery_address", "INDIRIZZO CONSEGNA", "INDIRIZZO DI CONSEGNA"),
        _time("created_at", "DATA CREAZIONE", "DATA DI CREAZIONE", required=True),
        _date("delivery_date", "DATA CONSEGNA", "DATA DI CONSEGNA"),
        _text("description", "DESCRIZIONE"),
        _text("customer_reference", "RIFERIMENTO CLIENTE"),
        _text("status", "STATO", "STATO VENDITE"),
        _text("order_type", "TIPO ORDINE", "TIPO DI ORDINE"),
        _text("document_status", "STATO DOCUMENTO"),
        _text("transfer_status", "STATO TRASFERIMENTO"),
        _date("transfer_date", "DATA TRASFERIMENTO"),
        _date("completion_date", "DATA COMPLETAMENTO"),
        _num("discount_percent", "SCONTO %", "APPLICA SCONTO %"),
        _num("gross_amount", "IMPORTO LORDO"),
        _num("total_amount", "IMPORTO TOTALE"),
    ),
)

DDT = SyncType(
    name="ddt",
    scope=Scope.AGENT,
    table="agents.ddt",
    default_interval_minutes=20,
    level=1,
    key=("ddt_number",),
    order_reference="order_number",
    same_label=(("delivery_name", "delivery_address"),),
    report_ids=("ddt_number", "ddt_id"),
    tracking=Tracking(courier="courier", number="tracking_number", url="tracking_url"),
    fields=(
        _id("ddt_number", "NUMERO DDT", "DOCUMENTO DI TRASPORTO", required=True),
        _id("ddt_id", "ID"),
        _id("order_number", "NUMERO ORDINE", "ID DI VENDITA", required=True),
        _date("delivery_date", "DATA CONSEGNA", "DATA DI CONSEGNA"),
        _id("customer_id", "ID CLIENTE", "CONTO DELL'ORDINE"),
        _text("delivery_name", "NOME CONSEGNA", "NOME DI CONSEGNA"),
        _text("delivery_address", "INDIRIZZO CONSEGNA", "INDIRIZZO DI CONSEGNA"),
        _num("quantity", "QUANTITÀ", "TOTALE QUANTITÀ"),
        _text("customer_reference", "RIFERIMENTO CLIENTE"),
        _text("description", "DESCRIZIONE"),
        _text("delivery_terms", "TERMINI DI CONSEGNA"),
        _text("delivery_method", "MODALITÀ DI CONSEGNA", "METODO DI CONSEGNA"),
        _text("contact", "REFERENTE", "ALL'ATTENZIONE DI"),
        _text("courier", "CORRIERE"),
        _id("tracking_number", "NUMERO TRACKING", "NUMERO DI TRACCIABILITÀ"),
        _text("tracking_url", "URL TRACKING"),
    ),
)

INVOICES = SyncType(
    name="invoices",
    scope=Scope.AGENT,
    table="agents.invoices",
    default_interval_minutes=20,
    level=1,
    key=("invoice_number", "order_number"),
    order_reference="order_number",
    fields=(
        _id("invoice_number", "NUMERO FATTURA", "FATTURA", required=True),
        _id("order_number", "NUMERO ORDINE", "ID DI VENDITA", required=True),
        _date("invoice_date", "DATA FATTURA"),
        _date("due_date", "SCADENZA", "DATA SCADENZA"),
        _id("customer_id", "ID CLIENTE", "CONTO FATTURE"),
        _text("billing_name", "NOME FATTURAZIONE", "INTESTATARIO"),
        _num("quantity", "QUANTITÀ"),
        _num("net_amount", "IMPONIBILE", "IMPORTO NETTO"),
        _num("discount_amount", "SCONTO", "IMPORTO SCONTO"),
        _num("tax_amount", "IVA", "IMPORTO IVA"),
        _num("freight_amount", "TRASPORTO", "SPESE DI TRASPORTO"),
        _num("total_amount", "IMPORTO TOTALE", "TOTALE FATTURA"),
        _num("settled_amount", "IMPORTO SALDATO", "SALDATO"),
        _num("remaining_amount", "IMPORTO RESIDUO", "RESIDUO"),
        _text("payment_terms", "TERMINI DI PAGAMENTO", "MODALITÀ DI PAGAMENTO"),
        _date("last_settlement_date", "DATA ULTIMO PAGAMENTO"),
        _bool("closed", "CHIUSO", "CHIUSA"),
    ),
)

PRODUCTS = SyncType(
    name="products",
    scope=Scope.SHARED,
    table="shared.products",
    default_interval_minutes=30,
    level=0,
    key=("product_id",),
    fields=(
        _id("product_id", "ID", "CODICE ARTICOLO", "ID ARTICOLO", required=True),
        _text("name", "NOME", "NOME ARTICOLO", required=True),
        _text("description", "DESCRIZIONE"),
        _id("group_code", "CODICE GRUPPO", "GRUPPO ARTICOLO"),
        _text("group_name", "NOME GRUPPO"),
        _text("group_description", "DESCRIZIONE GRUPPO"),
        _text("search_name", "NOME DI RICERCA"),
        _text("package_content", "CONTENUTO IMBALLAGGIO", "CONTENUTO CONFEZIONE"),
        _text("price_unit", "UNITÀ DI PREZZO"),
        _num("unit_price", "PREZZO UNITARIO", "PREZZO"),
        _num("min_quantity", "QUANTITÀ MINIMA"),
        _num("multiple_quantity", "QUANTITÀ MULTIPLA"),
        _num("max_quantity", "QUANTITÀ MASSIMA"),
        _num("units_in_stock", "GIACENZA"),
        _text("size", "FORMATO", "DIMENSIONE"),
        _text("unit", "UNITÀ", "UNITÀ DI MISURA"),
        _bool("discontinued", "FUORI PRODUZIONE", "DISCONTINUATO"),
        _time("modified_at", "DATA MODIFICA", "MODIFICATO IL"),
    ),
)

PRICES = SyncType(
    name="prices",
    scope=Scope.SHARED,
    table="shared.prices",
    default_interval_minutes=60,
    level=1,
    key=("product_id", "account_code", "valid_from", "quantity_from"),
    nullable_key=("valid_from",),
    fields=(
        _id("product_id", "CODICE ARTICOLO", "ID ARTICOLO", required=True),
        Field(name="account_code", kind=Kind.IDENTIFIER, aliases=("CODICE CONTO", "CONTO"), empty=""),
        _date("valid_from", "VALIDO DAL", "DATA INIZIO", "DAL"),
        _num("quantity_from", "QUANTITÀ DA", "DA QUANTITÀ", empty="0"),
        _text("product_name", "NOME ARTICOLO"),
        _num("unit_price", "PREZZO UNITARIO", "PREZZO", required=True),
        _text("currency", "VALUTA"),
        _text("price_unit", "UNITÀ DI PREZZO"),
        _text("account_description", "DESCRIZIONE CONTO"),
        _date("valid_to", "VALIDO AL", "DATA FINE", "AL"),
        _num("quantity_to", "QUANTITÀ A", "A QUANTITÀ"),
    ),
)

SYNC_TYPES: dict[str, SyncType] = {t.name: t for t in (ORDERS, CUSTOMERS, PRODUCTS, PRICES, DDT, INVOICES)}


def sync_type(name: str) -> SyncType:
    """The type of that name. Raises UsageError, which says what is allowed."""
    found = SYNC_TYPES.get(name)
    if found is None:
        from difflib import get_close_matches

        close = get_close_matches(name, SYNC_TYPES, n=1)
        raise UsageError(
            f"there is no sync type {name!r}",
            hint=(f"did you mean {close[0]}? " if close else "") + "allowed: " + ", ".join(SYNC_TYPES),
        )
    return found
