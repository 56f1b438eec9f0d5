"""Recorded requests of real clients: all are understood, none costs more than its ceiling, limits change little."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ownkey.providers.failures import Failure, classify
from tests.fixtures.recordings import read_recordings
from tests.recordings.test_usage import FAMILIES, body_of, call_of, provider_of, readable

pytestmark = pytest.mark.recordings

# Its reply belongs to a longer request than the one recorded with it.
FOREIGN_REPLY = {"r-f3ac3b02e987"}


@pytest.mark.parametrize("family", FAMILIES)
def test_no_request_costs_more_than_its_ceiling(recordings: Path, family: str) -> None:
    """What the provider charged is within the bounds we would have reserved, for input and for output."""
    problems = []
    for one in readable(recordings, family):
        expected, call = one["expected"], call_of(one)
        made_up = one["origin"] != "recorded" or one.get("request_reconstructed") or one["id"] in FOREIGN_REPLY
        if expected is None or made_up or not call.endpoint.generates:
            continue
        most = (call.output_maximum() if call.output_limit is None else call.output_limit) * call.choices
        if (expected["billable_input_tokens"] or 0) > call.input_ceiling():
            problems.append(f"{one['id']}: input {expected['billable_input_tokens']} > {call.input_ceiling()}")
        if (expected["billable_output_tokens"] or 0) > most:
            problems.append(f"{one['id']}: output {expected['billable_output_tokens']} > {most}")
    assert problems == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_limit_changes_one_member(recordings: Path, family: str) -> None:
    """Of every real request that can be limited, everything but the limit means the same afterwards."""
    for one in readable(recordings, family):
        call = call_of(one)
        if not call.endpoint.generates or not call.can_limit:
            continue
        before, after = json.loads(call.body), json.loads(call.with_output_limit(17))
        changed = {name for name in after if name not in before or before[name] != after[name]}
        assert before.keys() - after.keys() <= {"max_completion_tokens"}  # where the provider has another name for it
        assert len(changed) <= 1, one["id"]
        limited = call_of({**one, "request_body": json.dumps(after), "request_body_encoding": "text"})
        assert limited.output_limit is not None
        assert limited.output_limit <= 17
        assert (limited.model, limited.stream, limited.choices) == (call.model, call.stream, call.choices)


def test_recorded_refusals_are_read_right(recordings: Path) -> None:
    """Of recorded errors: a bad key is the key's fault, lack of money is money's, a bad request is neither."""
    meaning = {401: Failure.KEY_REJECTED, 404: Failure.BAD_REQUEST, 429: Failure.PRESSURE, 500: Failure.OUTAGE}
    for one in read_recordings(recordings, "errors"):
        body, status = body_of(one, "response_body"), one["response_status"]
        if b"API key not valid" in body or b"token included in the request is expired" in body:
            expected = Failure.KEY_REJECTED
        elif b"You don't have access to the model" in body:
            expected = Failure.LIMITED
        elif b"insufficient_quota" in body:
            expected = Failure.NO_MONEY
        else:
            expected = meaning.get(status, Failure.OUTAGE if status >= 500 else Failure.BAD_REQUEST)
        assert classify(provider_of(one), status, body) is expected, one["id"]
