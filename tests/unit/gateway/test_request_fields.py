"""Bodies that would take long to read, and what only looks like one."""

from __future__ import annotations

import pytest

from ownkey.errors import InvalidRequest
from ownkey.gateway.model_limits import UNKNOWN
from ownkey.gateway.request_fields import MOST_VALUES, refuse_repetitions
from tests.unit.gateway.samples import call, steps

MANY = MOST_VALUES // 2 + 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[%b{}]}' % (b"{}," * MANY),
        b'{"messages":[{"type":"image"},%b[]]}' % (b"[]," * MANY),
        b' {"model":[%b0]}' % (b"0," * 2 * MANY),
        b'{"prompt":[%b0]}' % (b'"\\",[",' * 2 * MANY),
        b'{"x":[%b0]}' % ((b"[" * 100 + b"]" * 100 + b",") * (MOST_VALUES // 100)),
        b'{"model":"m",%b"z":0}' % b"".join(b'"%x":0,' % number for number in range(2 * MANY)),
    ],
    ids=["objects", "arrays", "numbers", "strings", "nested", "members"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/new/things"])
def test_a_body_of_too_many_values_is_refused(path: str, body: bytes) -> None:
    """Callers are not known yet when a body is read, so none may keep everybody waiting: the refusal says how many."""
    with pytest.raises(InvalidRequest, match=f"more than {MOST_VALUES:,} values"):
        call(path=path, body=body)


@pytest.mark.parametrize("text", [b"1,2,", b'\\",[{\\\\', b"{}", b"\\u005b,"])
def test_long_texts_are_no_values(text: bytes) -> None:
    """Commas and brackets inside a string count for nothing, nor does what only looks like its end."""
    body = b'{"model":"m","messages":[{"content":"%b"}]}' % (text * 2 * MANY)
    assert call(body=body).input_ceiling() == len(body)


def test_as_many_values_as_are_allowed() -> None:
    """A long prompt of token numbers is read."""
    body = b'{"model":"m","prompt":[%b0]}' % (b"7," * (MOST_VALUES - 10))
    assert call(path="/v1/completions", body=body).choices == 1


@pytest.mark.parametrize("member", [b'"N":0,', b'"m":0,'], ids=["different", "the same"])
def test_a_body_of_too_many_members_is_refused(member: bytes) -> None:
    """Looking for a name that is there twice ends after so many names, however many follow."""

    taken = []
    for number in (10_000, 100_000):
        members = b"".join(member.replace(b"N", b"%x" % name) for name in range(number))
        body = b'{"messages":[{"model":"x"}],%b"model":"m"}' % members

        def look(body: bytes = body) -> None:
            with pytest.raises(InvalidRequest, match="more than 10,000 members"):
                refuse_repetitions("chat", body)

        taken.append(steps(look))
    assert taken[1] <= taken[0]


@pytest.mark.parametrize("text", ['"n" "n"', '"image" "image"', '"n" "model" "n"', ""])
def test_an_image_is_seen_behind_any_text(text: str) -> None:
    """Words in a text that are names of members, however often, hide no image that comes after them."""
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    content = [{"type": "text", "text": text}, image]
    read = call(body={"model": "m", "messages": [{"role": "user", "content": content}]})
    assert read.input_ceiling() == len(read.body) + UNKNOWN.image


@pytest.mark.parametrize(
    ("number", "is_read"),
    [(b"1e999", True), (b"-0." + b"7" * 5_000, True), (b"7" * 4_000, True), (b"7" * 5_000, False)],
)
def test_odd_numbers_in_a_message(number: bytes, is_read: bool) -> None:
    """What is beyond any number of ours is the provider's to judge; a whole one that cannot be read is refused."""
    body = b'{"messages":[{"type":"image","x":[1.5,%b]}]}' % number
    if is_read:
        assert call(body=body).input_ceiling() == len(body) + UNKNOWN.image
    else:
        with pytest.raises(InvalidRequest, match="not valid JSON"):
            call(body=body)


@pytest.mark.parametrize("value", [b"1.0", b"0.5", b"1e2", b"1e999", b"-1.5"])
@pytest.mark.parametrize("name", [b"n", b"max_tokens", b"stream", b"model", b"background"])
def test_a_fraction_is_no_value_of_a_member_that_we_act_on(name: bytes, value: bytes) -> None:
    """Limits and choices are whole numbers, written as such; nothing else is a number."""
    with pytest.raises(InvalidRequest, match=name.decode()):
        call(body=b'{"%b":%b}' % (name, value))


@pytest.mark.parametrize("letter", [b"a", b"\\n", b"\\u0061"])
def test_a_name_has_a_length(letter: bytes) -> None:
    """Where a name may be there twice, all are read, and none is longer than anybody's: the refusal says how long."""
    body = b'{"x":{"n":1},"%b":0,"n":1}'
    refuse_repetitions("chat", body % (letter * 1_000))
    with pytest.raises(InvalidRequest, match="more than 1,000 characters"):
        refuse_repetitions("chat", body % (letter * 1_001))
