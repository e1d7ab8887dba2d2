"""The operators' listener against its own OpenAPI document, by schemathesis. ``make soak`` tries more of the same."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.servers.gateway import Running, running

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = int(os.environ.get("WHYGATE_SOAK_EXAMPLES", "25"))
"""Of each operation, beside the ones that schemathesis makes to cover each constraint."""
CONFIG = """
[checks]
# What is invalid may be too large as well; schemathesis leaves 413 out of its own list.
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429]
"""


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path, {}) as made:
        yield made


@pytest.mark.timeout(3600 if EXAMPLES > 25 else 60)
@pytest.mark.parametrize("subject", ["ada@example.com", "agent:support", "op@example.com"])
async def test_every_answer_is_as_the_document_says(gateway: Running, tmp_path: Path, subject: str) -> None:
    """No 5xx, no undocumented status, type or shape, no valid request refused nor an invalid one taken, and every refusal
    is a problem document: for a person, for an agent, for an operator, and without a credential.
    """
    roles = ["operator", "breakglass"] if subject.startswith("op@") else None
    (credential,) = gateway.headers(subject, exp=int(time.time()) + 7200, roles=roles).values()
    seed = os.environ.get("WHYGATE_SOAK_SEED", "20261125")
    (tmp_path / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.operators_url}/schema/openapi.json"),
        *("--header", f"Authorization: {credential}", "--checks", _checks(subject), "--max-examples", str(EXAMPLES)),
        *("--seed", seed, "--continue-on-failure", "--no-color", "--request-timeout", "20"),
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.servers.schemathesis_checks", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    told = output.decode()
    assert process.returncode == 0, told
    if EXAMPLES > 25:
        sys.stdout.write(f"schemathesis as {subject}:\n" + told[told.index("= SUMMARY") :])
    assert {"decision", "task"} <= {one["kind"] for one in gateway.records()} or subject.startswith("agent")


def _checks(subject: str) -> str:
    """All of them; of who may not, nobody expects that the right request is taken; nor of an operator, whose requests have to
    fit what is in force as well.
    """
    if subject.startswith("op@"):
        return "not_a_server_error,status_code_conformance,response_schema_conformance,refusals_are_problem_documents"
    return (
        "all"
        if not subject.startswith("agent")
        else "not_a_server_error,status_code_conformance,refusals_are_problem_documents"
    )
