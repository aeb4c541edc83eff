"""schemathesis sends what the OpenAPI document allows, and what it does not: no 500, and no answer that is not described."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from archisync.store.database import Database
from tests.support.panel import TOKEN, Panel
from tests.support.panelsite import furnish

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "unsupported_method",
)  # fmt: skip
"""Not `ignored_auth`, whose wrong tokens make the panel refuse everybody for a minute: `test_api_access.py` tries those. Not
`positive_data_acceptance`: a schema can't say that an agent must exist, or that a pause ends in the future."""

REFUSALS = (
    "[checks.negative_data_rejection]\nexpected-statuses = [400, 401, 403, 404, 405, 406, 408, 409, 413, 415, 429]\n"
)
"""A body that is too large is refused as such, whatever else is wrong with it: schemathesis's own list lacks 413."""


@pytest.mark.parametrize(
    ("phases", "examples"),
    [
        pytest.param("fuzzing", 1, marks=[pytest.mark.check, pytest.mark.slow]),
        pytest.param("examples,coverage,fuzzing", 300, marks=pytest.mark.soak),
    ],
)
def test_nothing_that_is_sent_breaks_the_api_or_is_answered_in_another_way_than_described(
    phases: str, examples: int, running: Panel, site: Database, tmp_path: Path
) -> None:
    furnish(site)
    (tmp_path / "schemathesis.toml").write_text(REFUSALS)
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{running.url}/api/v1/openapi.json", "--no-color", "--continue-on-failure",
        "-H", f"Authorization: Bearer {TOKEN}", "--checks", ",".join(CHECKS), "--phases", phases,
        "--max-examples", str(examples), "--generation-deterministic", "--request-timeout", "60",
        "--warnings", "off", "--suppress-health-check", "all",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"web-failed"' not in (tmp_path / "web.log").read_text()
