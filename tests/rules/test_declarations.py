"""Declarations of sync types: what they say becomes a type and back; everything else is refused with file, key, reason and hint."""

import json
import tomllib
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archisync.base.errors import ConfigurationError
from archisync.rules.declarations import MAX_FIELDS, MAX_FILE_BYTES, levels, parse_toml, read
from archisync.rules.declarationtext import as_json, as_toml, document, fingerprint
from archisync.rules.reservedwords import RESERVED
from archisync.rules.synctypes import BUILT_IN, SYNC_TYPES, Field, Kind, Role, Scope, SyncType
from tests.support.builtintypes import JSON_FILE
from tests.support.builtintypes import as_json as built_in_json
from tests.support.declarations import sync_types

RETURNS = """
name     = "returns"
scope    = "agent"
interval = 30
after    = ["orders"]
key      = ["return_number"]

[fields]
return_number = { kind = "identifier", labels = ["NUMERO RESO"] }
order_number  = { kind = "identifier", labels = ["NUMERO ORDINE"], required = true }
return_date   = "date"
quantity      = { kind = "number", role = "counter" }
reason        = { labels = ["MOTIVO"] }
"""


def declared(text: str) -> SyncType:
    return read(parse_toml(text.encode(), "returns.toml"), file="returns.toml")


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    found = tomllib.loads(RETURNS)
    change(found)
    return found


def test_a_declaration_becomes_a_type() -> None:
    assert declared(RETURNS) == SyncType(
        name="returns",
        scope=Scope.AGENT,
        table="agents.returns",
        default_interval_minutes=30,
        level=0,
        after=("orders",),
        key=("return_number",),
        fields=(
            Field(name="return_number", kind=Kind.IDENTIFIER, required=True, aliases=("NUMERO RESO",)),
            Field(name="order_number", kind=Kind.IDENTIFIER, required=True, aliases=("NUMERO ORDINE",)),
            Field(name="return_date", kind=Kind.DATE),
            Field(name="quantity", kind=Kind.NUMBER, role=Role.COUNTER),
            Field(name="reason", aliases=("MOTIVO",)),
        ),
    )


def test_a_file_from_windows_is_read_too() -> None:
    content = ("\ufeff" + RETURNS.replace("\n", "\r\n")).encode()
    assert read(parse_toml(content, "returns.toml"), file="returns.toml") == declared(RETURNS)


def test_two_files_that_declare_the_same_have_one_fingerprint() -> None:
    verbose = RETURNS.replace(
        'return_date   = "date"', 'return_date = { labels = [], kind = "date", required = false }'
    )
    assert fingerprint(declared(verbose)) == fingerprint(declared(RETURNS))
    assert fingerprint(declared(verbose.replace("MOTIVO", "CAUSA"))) != fingerprint(declared(RETURNS))


@given(sync_types())
def test_a_type_survives_its_own_text(type_: SyncType) -> None:
    assert read(document(type_), file="x") == type_
    assert read(json.loads(as_json(type_)), file="x") == type_
    assert read(parse_toml(as_toml(type_).encode(), "x"), file="x") == type_


def test_the_json_of_the_built_in_types_is_that_of_their_toml_files() -> None:
    assert JSON_FILE.read_text("utf-8") == built_in_json(), "write it anew: make fix"


def test_each_built_in_type_is_declared_in_a_file_of_its_name() -> None:
    assert [path.stem.split("_")[1] for path in sorted(BUILT_IN.glob("*.toml"))] == list(SYNC_TYPES)


def test_a_type_comes_after_those_that_it_names() -> None:
    assert {name: type_.level for name, type_ in SYNC_TYPES.items()} == {
        "orders": 0, "customers": 0, "products": 0, "prices": 1, "ddt": 1, "invoices": 1,
    }  # fmt: skip
    assert levels({"a": ["b", "c"], "b": ["c"], "c": []}, file="x") == {"a": 2, "b": 1, "c": 0}


def test_reserved_words_are_those_of_postgresql(connection: psycopg.Connection[Any]) -> None:
    rows = connection.execute("select word from pg_get_keywords() where catcode in ('R', 'T')").fetchall()
    assert {row["word"] for row in rows} <= RESERVED


def put(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        for key in path[:-1]:
            found = found[key]
        found[path[-1]] = value

    return change


def drop(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda found: found.pop(key)


QUOTES = 'x"; drop table agents.orders; --'
HOSTILE: list[tuple[Callable[[dict[str, Any]], object], str, str]] = [
    # What is missing or unknown.
    (drop("name"), "returns.toml: name: it is missing", 'name = "returns"'),
    (drop("scope"), "returns.toml: scope: it is missing", 'scope = "agent", or "shared" for data that all agents have in common'),
    (drop("interval"), "returns.toml: interval: it is missing", "interval = 30   (minutes, 5 to 1440)"),
    (drop("key"), "returns.toml: key: it is missing", 'key = ["return_number"]: the fields that tell one row from all others'),
    (drop("fields"), "returns.toml: fields: it is missing", "[fields], then a line for each column"),
    (put("intervall", value=5), "returns.toml: intervall: an unknown key", "did you mean interval? keys: name, scope,"),
    (put("sql", value="drop table x"), "returns.toml: sql: an unknown key", "keys: name, scope,"),
    (put("default", value=1), "returns.toml: default: an unknown key", "keys: name, scope,"),
    (put("a\nb", value=1), r"returns.toml: 'a\nb': an unknown key", "keys: name, scope,"),
    (put("fields", "reason", "label", value=[]), "returns.toml: fields.reason.label: an unknown key", "did you mean labels?"),
    (put("fields", "reason", "default", value="x"), "returns.toml: fields.reason.default: an unknown key", "keys: kind, labels"),
    # Names.
    (put("name", value="orders; drop"), "returns.toml: name: 'orders; drop' can't be a name", "a-z, 0-9 and _"),
    (put("name", value=QUOTES), "returns.toml: name: 'x\"; drop table agents.orders; --' can't be a name", "a-z, 0-9 and _"),
    (put("name", value="Returns"), "returns.toml: name: 'Returns' can't be a name", "a-z, 0-9 and _"),
    (put("name", value="1st"), "returns.toml: name: '1st' can't be a name", "a-z, 0-9 and _"),
    (put("name", value="_x"), "returns.toml: name: '_x' can't be a name", "a-z, 0-9 and _"),
    (put("name", value=""), "returns.toml: name: '' can't be a name", "a-z, 0-9 and _"),
    (put("name", value="re\u0000turns"), r"returns.toml: name: 're\x00turns' can't be a name", "a-z, 0-9 and _"),
    (put("name", value="returns\n"), r"returns.toml: name: 'returns\n' can't be a name", "a-z, 0-9 and _"),
    (put("name", value="../etc/passwd"), "returns.toml: name: '../etc/passwd' can't be a name", "a-z, 0-9 and _"),
    (put("name", value="r\u0435turns"), r"returns.toml: name: 'r\u0435turns' can't be a name", "a-z, 0-9 and _"),
    (put("name", value="x" * 64), f"returns.toml: name: '{'x' * 36}... has 64 bytes", "PostgreSQL keeps 63 of a name"),
    (put("name", value="all"), "returns.toml: name: all is a reserved word of SQL", "all_ or another name"),
    (put("name", value="users"), "returns.toml: name: users means something else to archisync", "choose another name"),
    (put("name", value="select"), "returns.toml: name: select is a reserved word of SQL", "select_ or another name"),
    (put("name", value=7), "returns.toml: name: 7 is no text", 'in quotes: "…"'),
    (put("name", value=["returns"]), "returns.toml: name: ['returns'] is no text", 'in quotes: "…"'),
    (put("fields", "order", value="text"), "returns.toml: fields.order: order is a reserved word of SQL", "order_ or another name"),
    (put("fields", "agent_id", value="text"), "returns.toml: fields.agent_id: agent_id is a column of archisync itself", "choose"),
    (put("fields", "run_id", value="text"), "returns.toml: fields.run_id: run_id is a column of archisync itself", "choose"),
    (put("fields", "line_digest", value="text"), "returns.toml: fields.line_digest: line_digest is a column of archisync", "choose"),
    (put("fields", "ok", value="text"), "returns.toml: fields.ok: ok is a column of archisync itself", "choose"),
    (put("fields", "ctid", value="text"), "returns.toml: fields.ctid: ctid is a column of archisync itself", "choose"),
    (put("fields", "ignored_3", value="text"), "returns.toml: fields.ignored_3: ignored_3 is a column of archisync", "choose"),
    (put("fields", QUOTES, value="text"), "returns.toml: fields.'x\"; drop table agents.orders; --': 'x\"; drop", "a-z, 0-9 and _"),
    (put("fields", "y" * 64, value="text"), f"returns.toml: fields.{'y' * 64}: '{'y' * 36}... has 64 bytes", "PostgreSQL keeps"),
    # Tables.
    (put("table", value="returns"), "returns.toml: table: 'returns' is no table", 'schema and table: "agents.returns"'),
    (put("table", value="a.b.c"), "returns.toml: table: 'a.b.c' is no table", 'schema and table: "agents.returns"'),
    (put("table", value="agents."), "returns.toml: table: '' can't be a name", "a-z, 0-9 and _"),
    (put("table", value='agents."r'), "returns.toml: table: '\"r' can't be a name", "a-z, 0-9 and _"),
    (put("table", value="agents.r; drop"), "returns.toml: table: 'r; drop' can't be a name", "a-z, 0-9 and _"),
    (put("table", value="agents.users"), "returns.toml: table: agents.users is a table of archisync itself", "choose another name"),
    (put("table", value="system.returns"), "returns.toml: table: the schema system is not for data", "agents, shared, or one of yours"),
    (put("table", value="pg_catalog.returns"), "returns.toml: table: the schema pg_catalog is not for data", "agents, shared"),
    (put("table", value="pg_temp.returns"), "returns.toml: table: the schema pg_temp is not for data", "agents, shared"),
    (put("table", value="information_schema.r"), "returns.toml: table: the schema information_schema is not for data", "agents"),
    (put("table", value="agents.table"), "returns.toml: table: table is a reserved word of SQL", "table_ or another name"),
    # Wrong types and ranges.
    (put("scope", value="agents"), "returns.toml: scope: 'agents' is not allowed", "did you mean agent? allowed: agent, shared"),
    (put("scope", value=True), "returns.toml: scope: True is no text", 'in quotes: "…"'),
    (put("interval", value=4), "returns.toml: interval: 4 is out of range", "a whole number of minutes from 5 to 1440"),
    (put("interval", value=1441), "returns.toml: interval: 1441 is out of range", "a whole number of minutes from 5 to 1440"),
    (put("interval", value=-5), "returns.toml: interval: -5 is out of range", "a whole number of minutes from 5 to 1440"),
    (put("interval", value=10.5), "returns.toml: interval: 10.5 is no whole number", "a whole number of minutes from 5 to 1440"),
    (put("interval", value=float("nan")), "returns.toml: interval: nan is no whole number", "a whole number of minutes"),
    (put("interval", value="30"), "returns.toml: interval: '30' is no whole number", "a whole number of minutes from 5 to 1440"),
    (put("interval", value=True), "returns.toml: interval: True is no whole number", "a whole number of minutes from 5 to 1440"),
    (put("interval", value=10**5000), "returns.toml: interval: int is out of range", "a whole number of minutes from 5 to 1440"),
    (put("adopt", value="yes"), "returns.toml: adopt: 'yes' is neither true nor false", "true or false, without quotes"),
    (put("after", value="orders"), "returns.toml: after: 'orders' is no list", "a list of types in brackets"),
    (put("after", value=["orders", "orders"]), "returns.toml: after: 'orders' stands there twice", "once"),
    (put("after", value=["returns"]), "returns.toml: after: a type can't come after itself", "leave it out"),
    (put("after", value=[f"t{n}" for n in range(51)]), "returns.toml: after: it has 51 values", "from 0 to 50 types"),
    (put("key", value=[]), "returns.toml: key: it has 0 values", "from 1 to 6 field names"),
    (put("key", value="return_number"), "returns.toml: key: 'return_number' is no list", "a list of field names in brackets"),
    (put("key", value=["return_numbr"]), "returns.toml: key: 'return_numbr' is no field of this type", "did you mean return_number?"),
    (put("key", value=["return_number"] * 2), "returns.toml: key: 'return_number' stands there twice", "once"),
    (put("key", value=["reason"]), "returns.toml: fields.reason.kind: a key can't have text", 'reason = { kind = "identifier" }'),
    (put("key", value=[["return_number"]]), "returns.toml: key: ['return_number'] is no text", 'in quotes: "…"'),
    (put("nullable_key", value=["return_date"]), "returns.toml: nullable_key: return_date is no part of the key", "only a part"),
    (put("nullable_key", value=["return_number"]), "returns.toml: nullable_key: return_number is neither a date", "empty = "),
    (put("order_reference", value="order_no"), "returns.toml: order_reference: 'order_no' is no field", "did you mean order_number?"),
    (put("order_reference", value="reason"), "returns.toml: order_reference: reason is no identifier", 'kind = "identifier"'),
    (put("same_label", value=[["reason"]]), "returns.toml: same_label: it has 1 values", "from 2 to 2 field names"),
    (put("same_label", value=["reason"]), "returns.toml: same_label: 'reason' is no list", "a list of field names in brackets"),
    (put("report_ids", value=["nothing"]), "returns.toml: report_ids: 'nothing' is no field of this type", "fields: return_number"),
    (put("tracking", value="x"), "returns.toml: tracking: 'x' is no table", "a table of keys and values"),
    (put("tracking", value={"courier": "reason"}), "returns.toml: tracking.number: it is missing", "courier, number and url"),
    (put("tracking", value={"courier": "reason", "number": "reason", "url": "reason"}), "returns.toml: tracking: one field", "three"),
    (put("fields", value=[]), "returns.toml: fields: [] is no table", "a table of keys and values"),
    (put("fields", value={}), "returns.toml: fields: there are 0 fields", f"from 1 to {MAX_FIELDS}"),
    (put("fields", value={f"f{n}": "text" for n in range(10_000)}), "returns.toml: fields: there are 10000 fields", "from 1 to 500"),
    (put("fields", "reason", value="varchar"), "returns.toml: fields.reason: 'varchar' is not allowed", "allowed: text, identifier"),
    (put("fields", "reason", value="nummer"), "returns.toml: fields.reason: 'nummer' is not allowed", "did you mean number?"),
    (put("fields", "reason", value=7), "returns.toml: fields.reason: 7 is neither a kind nor a table", 'reason = "date" or'),
    (put("fields", "reason", value=["date"]), "returns.toml: fields.reason: ['date'] is neither a kind nor a table", "reason ="),
    (put("fields", "reason", "kind", value="numeric(9,2)"), "returns.toml: fields.reason.kind: 'numeric(9,2)' is not", "allowed"),
    (put("fields", "reason", "role", value="counters"), "returns.toml: fields.reason.role: 'counters' is not", "did you mean counter?"),
    (put("fields", "reason", "required", value=1), "returns.toml: fields.reason.required: 1 is neither true nor false", "true or false"),
    (put("fields", "reason", "distinct", value=True), "returns.toml: fields.reason.distinct: only of an identifier", "distinct = true"),
    (put("fields", "reason", "empty", value="x"), "returns.toml: fields.reason.empty: 'x' can't stand for an empty cell", "identifier"),
    (put("fields", "quantity", "empty", value="0'; --"), 'returns.toml: fields.quantity.empty: "0\'; --" can\'t stand', "identifier"),
    (put("fields", "quantity", "empty", value="0"), "returns.toml: fields.quantity.empty: only a part of the key has one", "leave it out"),
    # Labels.
    (put("fields", "reason", "labels", value="MOTIVO"), "returns.toml: fields.reason.labels: 'MOTIVO' is no list", "a list of labels"),
    (put("fields", "reason", "labels", value=[1]), "returns.toml: fields.reason.labels: 1 is no text", 'in quotes: "…"'),
    (put("fields", "reason", "labels", value=[""]), "returns.toml: fields.reason.labels: '' can't be a label", "what the export writes"),
    (put("fields", "reason", "labels", value=[" : "]), "returns.toml: fields.reason.labels: ' : ' can't be a label", "what the export"),
    (put("fields", "reason", "labels", value=["a\nb"]), r"returns.toml: fields.reason.labels: 'a\nb' can't be a label", "one line"),
    (put("fields", "reason", "labels", value=["a\x1b[2J"]), r"returns.toml: fields.reason.labels: 'a\x1b[2J' can't", "one line"),
    (put("fields", "reason", "labels", value=["x" * 201]), f"returns.toml: fields.reason.labels: the label '{'x' * 36}...", "at most 200"),
    (
        put("fields", "reason", "labels", value=["numero  réso:"]),
        r"returns.toml: fields.reason.labels: the label 'numero  r\xe9so:' is one of return_number too",
        "a label belongs to one field",
    ),
    (put("fields", "reason", "labels", value=["Quantity"]), "returns.toml: fields.reason.labels: the label 'Quantity' is", "a label"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message", "hint"), HOSTILE, ids=[case[1][14:60] for case in HOSTILE])
def test_a_hostile_declaration_is_refused_with_file_key_reason_and_hint(
    change: Callable[[dict[str, Any]], object], message: str, hint: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read(changed(change), file="returns.toml")
    assert refused.value.message.startswith(message)
    assert hint in refused.value.hint


def test_what_fits_one_by_one_but_not_together_is_refused() -> None:
    shared = changed(lambda d: d.update(scope="shared", order_reference="order_number"))
    both = changed(lambda d: (d.update(key=["return_number", "return_date"], nullable_key=["return_date"]),
                              d["fields"].update(return_date={"kind": "date", "required": True})))  # fmt: skip
    never = changed(lambda d: d.update(key=["return_date"], nullable_key=["return_date"]))
    refused = []
    for found in (shared, both, never):
        with pytest.raises(ConfigurationError) as error:
            read(found, file="returns.toml")
        refused.append(error.value.message)
    assert refused == [
        "returns.toml: order_reference: orders are an agent's, and this type is shared",
        "returns.toml: fields.return_date.required: what may be empty can't be required",
        "returns.toml: nullable_key: a row without any key is no row",
    ]


@pytest.mark.parametrize("found", [None, [], "returns", 7, {1: 2}])
def test_a_document_that_is_no_table_is_refused(found: object) -> None:
    with pytest.raises(ConfigurationError, match=r"returns.toml: .* is no table"):
        read(found, file="returns.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = ", "returns.toml: it is not TOML: Invalid value (at end of document)"),
        (b"name = 'a'\nname = 'b'\n", "returns.toml: it is not TOML: Cannot overwrite a value (at line 2, column 11)"),
        (
            b"[fields]\n[fields]\n",
            "returns.toml: it is not TOML: Cannot declare ('fields',) twice (at line 2,",
        ),
        (b"name = \xff", "returns.toml: it is not UTF-8 (byte 7)"),
        (b"name = 'a\x00b'", "returns.toml: it is not TOML: "),
        (b"x = 1\n" * (MAX_FILE_BYTES // 6 + 1), "returns.toml: the file has 131076 bytes"),
        (b"x = " + b"[" * 3990, "returns.toml: it is nested too deep"),
        (b"x = " + b"[" * 5000, "returns.toml: line 1 is longer than 4000 characters"),
        (b"x = [\n" + b"[\n" * 20_000, "returns.toml: it is nested too deep"),
        (b"a" + b".a" * 1900 + b" = 1\nx = " + b"9" * 3000, "returns.toml: "),
        (b"x = " + b"{a=" * 1000, "returns.toml: it is nested too deep"),
        (b"\x00\x01\x02", "returns.toml: it is not TOML: "),
        (b"%PDF-1.7\n", "returns.toml: it is not TOML: "),
        (b"PK\x03\x04\xff", "returns.toml: it is not UTF-8 (byte 4)"),
    ],
    ids=lambda value: value[:20].decode("latin-1").strip() if isinstance(value, bytes) else "",
)
def test_a_file_that_is_no_declaration_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read(parse_toml(content, "returns.toml"), file="returns.toml")
    assert refused.value.message.startswith(message)
    assert refused.value.hint


def test_a_circle_and_an_unknown_type_in_after_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^x: after: a circle: a after b after c after a$"):
        levels({"a": ["b"], "b": ["c"], "c": ["a"]}, file="x")
    with pytest.raises(ConfigurationError, match=r"^x: after: there is no type 'ordrs'$") as refused:
        levels({"a": ["ordrs"], "orders": []}, file="x")
    assert refused.value.hint == "did you mean orders? types: a, orders"


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(sync_types(), st.data())
def test_any_value_in_any_place_is_understood_or_refused(type_: SyncType, data: st.DataObject) -> None:
    found = document(type_)
    at: Any = found
    key = data.draw(st.sampled_from(sorted(found)))
    while isinstance(at[key], dict) and at[key] and data.draw(st.booleans()):
        at, key = at[key], data.draw(st.sampled_from(sorted(at[key])))
    at[key] = data.draw(JUNK)
    try:
        again = read(found, file="x")
    except ConfigurationError as refused:
        assert refused.message.startswith("x: ")
        assert refused.hint
    else:
        assert read(document(again), file="x") == again
