"""Random declarations of sync types, for properties."""

from dataclasses import replace

from hypothesis import strategies as st

from archisync.rules.labels import fold_label
from archisync.rules.reservedwords import OWN_COLUMNS, RESERVED
from archisync.rules.synctypes import SYNC_TYPES, Field, Kind, Role, Scope, SyncType

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True).filter(
    lambda name: name not in RESERVED | OWN_COLUMNS | {"users"} and not name.startswith("ignored_")
)
LABELS = st.text(
    st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="\u2028\u2029"), min_size=1, max_size=30
).filter(lambda label: label.isprintable() and bool(fold_label(label)))
EMPTY = {Kind.IDENTIFIER: ["", "-", "0"], Kind.NUMBER: ["0", "-1.5"], Kind.INTEGER: ["0", "7"]}
NULLABLE = (Kind.DATE, Kind.TIMESTAMP, Kind.NUMBER)


@st.composite
def sync_types(draw: st.DrawFn, *, max_fields: int = 8) -> SyncType:
    """Any type that can be declared, without what only printed reports have."""
    name = draw(NAMES.filter(lambda n: n not in SYNC_TYPES))
    names = draw(st.lists(NAMES, min_size=1, max_size=max_fields, unique_by=fold_label))
    key = draw(st.lists(st.sampled_from(names), min_size=1, max_size=min(3, len(names)), unique=True))
    taken = {fold_label(n) for n in names}
    fields = []
    for one in names:
        labels = [x for x in draw(st.lists(LABELS, max_size=2, unique_by=fold_label)) if fold_label(x) not in taken]
        taken |= set(map(fold_label, labels))
        kind = draw(st.sampled_from([k for k in Kind if one not in key or k is not Kind.TEXT]))
        fields.append(
            Field(
                name=one,
                kind=kind,
                aliases=tuple(labels),
                required=draw(st.booleans()),
                role=draw(st.none() | st.sampled_from(Role)),
                distinct=kind is Kind.IDENTIFIER and draw(st.booleans()),
            )
        )
    by_name = {field.name: field for field in fields}
    nullable = [n for n in key[1:] if by_name[n].kind in NULLABLE and draw(st.booleans())]
    empty = {n: draw(st.sampled_from(EMPTY[by_name[n].kind])) for n in key
             if n not in nullable and by_name[n].kind in EMPTY and draw(st.booleans())}  # fmt: skip
    fields = [
        replace(f, required=f.name not in {*nullable, *empty}, empty=empty.get(f.name)) if f.name in key else f
        for f in fields
    ]
    scope = draw(st.sampled_from(Scope))
    return SyncType(
        name=name,
        scope=scope,
        table=f"{'agents' if scope is Scope.AGENT else 'shared'}.{name}",
        default_interval_minutes=draw(st.integers(5, 1440)),
        level=0,
        after=tuple(draw(st.lists(st.sampled_from(list(SYNC_TYPES)), max_size=2, unique=True))),
        key=tuple(key),
        nullable_key=tuple(nullable),
        fields=tuple(fields),
    )
