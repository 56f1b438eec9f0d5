"""What tokens count on a plan that weighs them, and that a hold covers whatever a call can be charged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownkey.errors import InvalidRequest
from ownkey.metering.reservations import Admit, Caller, hold_for
from ownkey.metering.usage import Usage, charge
from ownkey.plans import Plan, read_catalogue
from ownkey.token_weights import TokenWeights

WEIGHED = """
[plans.team]
name = "Team"
monthly_tokens = 1000

[plans.team.weights]
cached_input = 0.1
output = 2

[plans.team.weights."gpt-5*"]
output = 4

[plans.team.weights."gpt-5-mini*"]
input = 0.5

[plans.team.weights."gpt-5-mini-search"]
output = 10
"""


def plan_of(folder: Path, text: str) -> Plan:
    """The plan of a file."""
    file = folder / "plans.toml"
    file.write_text(text)
    return read_catalogue(file)["team"]


def test_a_model_has_its_own_weights_or_the_plans(tmp_path: Path) -> None:
    """A name goes before a pattern, a long pattern before a short one; what is left out is as for every model."""
    plan = plan_of(tmp_path, WEIGHED)
    assert plan.weights_for("gpt-4o") == TokenWeights(cached_input=100, output=2000)
    assert plan.weights_for("gpt-5") == TokenWeights(cached_input=100, output=4000)
    assert plan.weights_for("gpt-5-mini-2026") == TokenWeights(input=500, cached_input=100, output=2000)
    assert plan.weights_for("gpt-5-mini-search") == TokenWeights(cached_input=100, output=10_000)
    assert plan.weights_for("my.gpt-5") == plan.weights_for("gpt-4o")
    assert Plan(name="Plain", monthly_tokens=1).weights_for("gpt-5") is None


def test_many_names_of_models_are_not_kept(tmp_path: Path) -> None:
    """A caller that makes up names fills no memory, and each has its weights all the same."""
    plan = plan_of(tmp_path, WEIGHED)
    assert {plan.weights_for(f"gpt-5-{number}") for number in range(3_000)} == {plan.weights_for("gpt-5")}
    assert len(plan._by_model._found) <= 1_000


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cached = 0.1", "'cached' is no kind of token"),
        ("input = -1", "weights.input"),
        ("[plans.team.weights.gpt-5]\nreasoning = 2", "reasoning"),
        ("[plans.team.weights.output]\noutput = 2", "'output' is a kind of token and takes a number"),
    ],
)
def test_a_wrong_table_is_said(tmp_path: Path, line: str, said: str) -> None:
    """A misspelt kind is named when the file is read, not silently one."""
    with pytest.raises(InvalidRequest, match="The plans file") as error:
        plan_of(tmp_path, f'[plans.team]\nname = "T"\nmonthly_tokens = 1\n[plans.team.weights]\n{line}\n')
    assert said in error.value.message


def test_what_a_call_is_charged() -> None:
    """Each kind by its weight, rounded up; on an own key nothing."""
    usage = Usage(input_tokens=100, output_tokens=7, cached_input_tokens=60, cache_write_tokens=30)
    assert charge(usage, "allowance") == 107
    assert charge(usage, "allowance", TokenWeights(1000, 100, 1250, 4000)) == 10 + 6 + 38 + 28  # 37.5 rounded up
    assert charge(usage, "own_key", TokenWeights(output=4000)) == 0


WEIGHTS = st.builds(TokenWeights, *[st.integers(0, 5_000)] * 4)


@given(
    weights=WEIGHTS | st.none(),
    remaining=st.integers(-10, 50_000),
    ceiling=st.integers(1, 3_000),
    limit=st.integers(1, 3_000) | st.none(),
    choices=st.integers(1, 4),
    can_limit=st.booleans(),
    shares=st.tuples(*[st.floats(0, 1)] * 3),
)
def test_a_hold_covers_every_charge(
    weights: TokenWeights | None,
    remaining: int,
    ceiling: int,
    limit: int | None,
    choices: int,
    can_limit: bool,
    shares: tuple[float, float, float],
) -> None:
    """It fits into what is left, and no usage within the call's limits is charged more; it is refused only for need."""
    command = Admit(
        "req", Caller(), "openai", "m", "openai", True, True, "", "",
        ceiling, ceiling, limit, 2_000, 16, choices, can_limit,
    )  # fmt: skip
    hold = hold_for(command, remaining, weights)
    each = TokenWeights() if weights is None else weights
    worst = -(-ceiling * each.most_input // 1000) - (-(limit or 2_000) * choices * each.output // 1000)
    if hold is None:
        assert worst > (remaining if limit or not can_limit else remaining // 4)
        return
    assert hold.tokens <= max(remaining, 0)
    output = (hold.output_limit if hold.output_limit is not None else limit or 2_000) * choices
    cached = int(ceiling * shares[0])
    written = int((ceiling - cached) * shares[1])
    for made in (output, int(output * shares[2])):
        assert charge(Usage(ceiling, made, cached, written), "allowance", weights) <= hold.tokens
