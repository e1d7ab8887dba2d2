"""``whygate init`` and ``whygate keys``: what they write works, and a key is shown once and kept nowhere."""

import asyncio
import json
from pathlib import Path

import pytest
import typer
from tests.edges.authn_world import SetClock
from typer.testing import CliRunner

from whygate.authn import api_key
from whygate.authn.door import Door
from whygate.cli import init, keys
from whygate.config import from_mapping, load, weaknesses
from whygate.core.identity import Principal
from whygate.core.policy import parse

app = typer.Typer()
app.command()(init.init)
app.add_typer(keys.app)
runner = CliRunner()


def test_the_starter_works_at_once(tmp_path: Path) -> None:
    """The configuration loads without a weakness, the policy compiles, and the key that was shown opens the door."""
    result = runner.invoke(app, ["init", str(tmp_path / "new"), "--json"])
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    config = load(Path(told["config"]), {})
    assert weaknesses(config) == []
    assert config.policies == tmp_path / "new" / "policies"
    assert told["url"] == "http://127.0.0.1:8700/mcp/time"
    policies = parse.load({"starter.yaml": Path(told["policy"]).read_text(encoding="utf-8")})
    assert len(policies.rules) == 2
    who = asyncio.run(Door.from_config(config, SetClock()).identify(f"Bearer {told['api_key']}"))
    assert isinstance(who, Principal)
    assert (who.id, who.roles) == ("agent:first", ("starter",))


def test_a_key_is_shown_once_and_kept_as_its_hash(tmp_path: Path) -> None:
    """The key stands in what init prints, in no file that it writes, and in no repr."""
    result = runner.invoke(app, ["init", str(tmp_path)])
    key = next(word for word in result.stdout.split() if word.startswith("wg_"))
    assert result.stdout.count(key) == 1
    files = [path.read_text() for path in tmp_path.rglob("*.yaml")]
    assert len(files) == 2
    assert not any(key in text for text in files)
    assert api_key.stored(key) in files[0] + files[1]
    assert key not in repr(init.write_starter(tmp_path / "b", agent="a", owner="o"))


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    """Where a file is there already, init writes nothing and answers 1; --force overwrites."""
    policy = tmp_path / "policies" / "starter.yaml"
    policy.parent.mkdir()
    policy.write_text("mine")
    result = runner.invoke(app, ["init", str(tmp_path)])
    assert result.exit_code == 1
    assert "--force" in result.stderr
    assert policy.read_text() == "mine"
    assert not (tmp_path / "whygate.yaml").exists()
    assert runner.invoke(app, ["init", str(tmp_path), "--force"]).exit_code == 0
    assert "know-the-time" in policy.read_text()


def test_comments_of_the_starter_are_settings_too(tmp_path: Path) -> None:
    """What the starter offers as comments is valid once it is uncommented."""
    made = init.write_starter(tmp_path, agent="a", owner="o")
    lines = made.config.read_text().splitlines()
    hints = [line.replace("# ", "", 1) if _is_setting(line) else line for line in lines]
    made.config.write_text("\n".join(hints))
    config = load(made.config, {})
    assert set(config.tools) == {"time", "git", "tickets", "billing"}
    assert config.telemetry.otlp == "http://127.0.0.1:4318"
    assert config.identities.issuers[0].algorithms == ("ES256", "RS256")


def _is_setting(line: str) -> bool:
    text = line.strip()
    return text.startswith("# ") and (text.startswith(("#   ", "# - ")) or text.split()[1].rstrip(":") in _KEYS)


_KEYS = {"issuers", "task_openers", "git", "tickets", "billing", "telemetry"}


@pytest.mark.parametrize("agent", ["role:x", "a b", "", "x\ny"])
def test_an_agent_that_cannot_be_named_so_is_misuse(agent: str, tmp_path: Path) -> None:
    """An id that the configuration would refuse is refused before anything is made, with exit code 2."""
    for command in (["init", str(tmp_path / "x"), "--agent", agent], ["keys", "new", "--agent", agent]):
        result = runner.invoke(app, command)
        assert result.exit_code == 2
        assert "letters" in result.stderr
        assert "wg_" not in result.stdout
    assert not (tmp_path / "x").exists()


def test_names_with_quotes_stay_text(tmp_path: Path) -> None:
    """An owner with quotes, colons and other scripts comes back as it was given."""
    owner = 'Zoë "Z" O\'Neil: {ops} # 😀'
    made = init.write_starter(tmp_path, agent="a", owner=owner)
    assert load(made.config, {}).identities.agents[0].owner == owner


def test_new_keys_can_be_pasted() -> None:
    """``keys new`` prints lines that are valid as they stand, and JSON on request."""
    result = runner.invoke(app, ["keys", "new", "--agent", "agent:x", "--json"])
    told = json.loads(result.stdout)
    assert api_key.has_shape(told["api_key"])
    assert told["stored"] == api_key.stored(told["api_key"])
    plain = runner.invoke(app, ["keys", "new", "--agent", "agent:x"]).stdout.splitlines()
    at = next(number for number, line in enumerate(plain) if line.startswith("  - id"))
    import yaml

    pasted = yaml.safe_load("\n".join(plain[at : at + 3]))
    assert (
        from_mapping({"ledger": "l", "policies": "p", "identities": {"agents": pasted}}).identities.agents[0].api_keys
    )


def test_keys_are_random() -> None:
    """Two keys differ, and each has the whole 256 bits."""
    made = {keys.new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(len(key) == 46 and api_key.has_shape(key) for key in made)
    with pytest.raises(ValueError, match="32 random bytes"):
        api_key.from_random(b"short")
