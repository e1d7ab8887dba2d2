"""Policy sets of many files, and many mistakes, fit into their records."""

import pytest
from tests.gatekeeping import RULES, World

from whygate.core.policy.errors import PolicyErrors


async def test_a_set_of_many_files_comes_into_force() -> None:
    """Its record names the first of them; its digest and its kept texts have them all."""
    texts = {f"{number:04}-{'x' * 200}.yaml": RULES.replace(": support\n", f": s{number}\n") for number in range(1000)}
    world = await World().load(texts)
    record = world.ledger.of("policy")[-1]
    assert 0 < len(record.files) < 1000
    assert world.ledger.disk.policies[record.digest] == texts


async def test_many_mistakes_are_one_record() -> None:
    """The first of them, each cut to a line that can be read."""
    world = await World().load()
    broken = RULES.replace("permit: {}", f"permit: {{}}\n    when: {'é' * 5000}")
    texts = {f"{number:04}-{'x' * 200}.yaml": broken.replace(": support\n", f": s{number}\n") for number in range(500)}
    with pytest.raises(PolicyErrors):
        await world.load(texts)
    record = world.ledger.of("policy")[-1]
    assert record.event == "refused"
    assert len(record.errors) == 20
