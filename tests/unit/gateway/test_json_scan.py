"""Reading a JSON document in pieces: the same answer however it is cut, with hardly a byte held."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownkey.gateway.json_scan import JsonScan, text_bytes

WANTED = (("usage",), ("response", "usage"))
DOCUMENT = {
    "id": 'a"b\\c{[',
    "items": [{"usage": {"not": "this"}}, [[{"text": "abc"}]], -1.5e3, None, True],
    "text": 'he said "hi" \\ {} [] é',
    'te"xt': "not text",
    "tool": {"input": {"city": "Paris", "text": "x"}, "args": []},
    "number": 5,
    "response": {"content": "défg", "usage": {"b": [1, {"c": "}"}]}},
    "usage": {"a": {"deep": '\\"'}},
}


def scanned(document: bytes, *cuts: int) -> tuple[list[object], int]:
    """What a scan finds in a document that comes in pieces."""
    scan, last = JsonScan(WANTED), 0
    found: list[object] = []
    for cut in (*cuts, len(document)):
        scan.take(document[last:cut])
        found += [msgspec.json.decode(member) for member in scan.members()]
        last = cut
    return found, scan.text_bytes


@pytest.mark.parametrize("layout", [{"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}])
@pytest.mark.parametrize("wrap", ["%s", "[%s]", "%s\n%s", "[\n%s\n,\n%s\n]"])
def test_the_same_wherever_it_is_cut(layout: dict[str, object], wrap: str) -> None:
    """Members at their path and the text are found alike in one piece, in two at every place, and byte by byte."""
    one = json.dumps(DOCUMENT, **layout)  # type: ignore[arg-type]
    count = wrap.count("%s")
    document = (wrap % ((one,) * count)).encode()
    members = [{"response": {"usage": {"b": [1, {"c": "}"}]}}}, {"usage": {"a": {"deep": '\\"'}}}]
    whole = scanned(document)
    assert whole[0] == members * count
    assert all(scanned(document, cut) == whole for cut in range(len(document)))
    assert scanned(document, *range(len(document))) == whole


def test_what_a_model_wrote_is_added_up() -> None:
    """Strings under the names of text, and all of a tool's arguments, as long as they stand in the document."""
    assert text_bytes(b'{"text":"abc","name":"no","content":["no"],"value":"d"}') == 4
    assert text_bytes(b'{"input":{"a":1},"args":[1,2],"arguments":"{}"}') == len('"a":1') + len("1,2") + 2
    assert text_bytes(b'{"text": "abc') == 3
    assert text_bytes(b'{"text": {"text": "abc"}, "text') == 3
    assert text_bytes(b'{"a": "text", "b": "x"}') == 0


@pytest.mark.parametrize(
    ("strings", "encoded"),
    [
        (["A" * 5_000, "data:image/png;base64," + "iVBORw0KGgo" * 500, "/9j/" * 100], [5_000, 5_522]),
        (["word " * 2_000, "世" * 3_000, "A" * 4_096, "A" * 5_000 + "."], []),
        (["A" * 9_000 + " B", "C" * 4_097], [4_097]),
    ],
)
def test_what_is_encoded_is_told_from_text(strings: list[str], encoded: list[int]) -> None:
    """Values of base64 longer than any word, wherever they are cut; names, words and text are none."""
    document = json.dumps({"N" * 5_000: strings, "one": {"more": strings}}).encode()
    for size in (1, 777, len(document)):
        scan = JsonScan(finds_encoded=True)
        for start in range(0, len(document), size):
            scan.take(document[start : start + size])
        assert (scan.encoded_strings, scan.encoded_bytes) == (2 * len(encoded), 2 * sum(encoded))


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"]]]]}}}",
        b'"',
        b'{"a',
        b'{"a"}',
        b'{"a" x "b": {',
        b"\\\\\\",
        b'{"usage": ]',
        b"[" * 300_000,
        b'{"usage":' * 300,
    ],
)
def test_what_is_no_json_does_no_harm(junk: bytes) -> None:
    """Nothing is raised, and nothing is found that is not there."""
    assert scanned(junk)[0] == []


def test_a_wanted_member_may_not_be_endless() -> None:
    """A member beyond 64 KiB is not usage, and is not kept; the next one is found again."""
    document = b'{"usage":{"x":"' + b"y" * 200_000 + b'"},"response":{"usage":{"a":1}}}'
    assert scanned(document, *range(0, len(document), 1_000))[0] == [{"response": {"usage": {"a": 1}}}]


def test_depth_is_bounded() -> None:
    """Beyond a hundred levels only their number is kept, and the way back out is found."""
    deep = b'{"x":' * 150 + b'{"usage":{"no":1},"text":"abc"}' + b"}" * 150
    scan = JsonScan(WANTED)
    scan.take(b'{"a":' + deep + b',"usage":{"yes":1}}')
    assert [msgspec.json.decode(member) for member in scan.members()] == [{"usage": {"yes": 1}}]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["usage", "text", 'q"', "\\"]), inner),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(["usage", "response", "text", "x"]), json_values), st.data())
def test_any_document_at_any_cuts(document: dict[str, object], data: st.DataObject) -> None:
    """The wanted objects of any document are found, in any pieces."""
    text = json.dumps(document, ensure_ascii=data.draw(st.booleans())).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    found, _ = scanned(text, *cuts)
    expected: list[object] = []
    for name, value in document.items():
        inner = value.get("usage") if name == "response" and isinstance(value, dict) else None
        if isinstance(inner, dict):
            expected.append({"response": {"usage": inner}})
        if name == "usage" and isinstance(value, dict):
            expected.append({"usage": value})
    assert found == expected
    assert scanned(text, *cuts) == scanned(text)
