"""Names that no field, type or table may have."""

RESERVED = frozenset({
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization", "binary", "both", "case", "cast",
    "check", "collate", "collation", "column", "concurrently", "constraint", "create", "cross", "current_catalog", "current_date",
    "current_role", "current_schema", "current_time", "current_timestamp", "current_user", "default", "deferrable", "desc", "distinct",
    "do", "else", "end", "except", "false", "fetch", "for", "foreign", "freeze", "from", "full", "grant", "group", "having", "ilike",
    "in", "initially", "inner", "intersect", "into", "is", "isnull", "join", "lateral", "leading", "left", "like", "limit", "localtime",
    "localtimestamp", "natural", "not", "notnull", "null", "offset", "on", "only", "or", "order", "outer", "overlaps", "placing",
    "primary", "references", "returning", "right", "select", "session_user", "similar", "some", "symmetric", "system_user", "table",
    "tablesample", "then", "to", "trailing", "true", "union", "unique", "user", "using", "variadic", "verbose", "when", "where", "window",
    "with",
})  # fmt: skip
"""The reserved words of PostgreSQL (`pg_get_keywords()`): people would have to quote them in each query."""

BOOKKEEPING = ("inserted_at", "updated_at", "run_id", "absent_since", "line_digest")
"""The columns that each table has besides its fields, for archisync alone; those of agents have `agent_id` too."""

OWN_COLUMNS = frozenset(
    {"agent_id", *BOOKKEEPING, "ok"}
    | {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}  # of the stage; of PostgreSQL
)
