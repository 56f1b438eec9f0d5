"""Provider keys in a reply: overwritten at their length wherever they stand, however the reply is cut."""

from __future__ import annotations

import gzip
import json
import zlib
from itertools import pairwise

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownkey.credentials import Secret
from ownkey.gateway.redacting import Needles, Redactor

KEY = "sk-own-key-0123456789-abcdefghij"
NEEDLES = Needles([Secret(KEY)])
STARS = b"*" * len(KEY)


def passed(needles: Needles, pieces: list[bytes], coding: str = "") -> bytes:
    """What passes of a whole reply, with what the relay does before it needs a redactor."""
    redactor: Redactor | None = Redactor(needles, coding) if coding else None
    out = []
    for number, piece in enumerate(pieces, start=1):
        if redactor is None and not needles.absent([piece]):
            redactor = Redactor(needles)
        out += [piece] if redactor is None else redactor.feed([piece], number == len(pieces))
    return b"".join(out)


def test_a_key_is_overwritten_at_its_length() -> None:
    """Alone, at both ends, twice in a row, and beside what only looks like it."""
    for before, after in ((b"", b""), (b"sk-own-", b"sk-own-"), (KEY.encode(), b"!"), (b"\0\xff", b"\n\n")):
        whole = before + KEY.encode() + after
        assert passed(NEEDLES, [whole]) == whole.replace(KEY.encode(), STARS)


def test_every_cut_into_three() -> None:
    """A key, half a key and a key again, cut at any two places: the same bytes pass."""
    reply = b"x" + KEY.encode() + KEY.encode()[:9] + KEY.encode() + b"sk-o"
    for first in range(len(reply) + 1):
        for second in range(first, len(reply) + 1):
            pieces = [reply[:first], reply[first:second], reply[second:]]
            assert passed(NEEDLES, pieces) == b"x" + STARS + KEY.encode()[:9] + STARS + b"sk-o"


def test_nothing_waits_but_what_may_become_a_key() -> None:
    """Of a piece that ends like a key's beginning only that beginning is kept; it passes when another byte follows."""
    redactor = Redactor(NEEDLES)
    assert redactor.feed([b"data: sk-own"], False) == [b"data: "]
    assert redactor.feed([b"er\n\n"], False) == [b"sk-owner\n\n"]
    assert redactor.feed([b"a desk-top, a task-"], False) == [b"a desk-top, a ta"]
    assert redactor.feed([b"bar"], False) == [b""]
    assert redactor.feed([b"!"], False) == [b"sk-bar!"]
    assert redactor.feed([b"s"], False) == [b""]
    assert redactor.flush() == b"s"
    assert NEEDLES.absent([b"data: sk-own\n\n", b"", b"and so on."])
    assert not NEEDLES.absent([b"data: sk-own"])


def test_what_waits_tells_nothing_of_the_key() -> None:
    """A guess that goes on like the key waits neither more nor less than one that does not."""
    for right, wrong in ((KEY[:7], "sk-0000"), (KEY[:20], KEY[:19] + "Z"), (KEY[:-1], "sk-" + "x" * (len(KEY) - 4))):
        assert NEEDLES.begun(right.encode()) == NEEDLES.begun(wrong.encode()) == len(right)
        assert NEEDLES.absent([right.encode() + b'"']) is NEEDLES.absent([wrong.encode() + b'"']) is True


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ('a"quote\\and a line\n', json.dumps('a"quote\\and a line\n')[1:-1]),
        ("slash/inside/it", "slash\\/inside\\/it"),
        ("schlüssel-für-alle", "schlüssel-für-alle"),
    ],
)
def test_a_key_as_json_writes_it(key: str, written: str) -> None:
    """Escaped as in a JSON text it is found as well as bare, and the JSON stays JSON."""
    needles = Needles([Secret(key)])
    for text in (key, written):
        assert set(passed(needles, [text.encode()])) == {ord("*")}
    document = f'{{"said": "{written}"}}'
    assert set(json.loads(passed(needles, [document.encode()]))["said"]) == {"*"}


def test_one_secret_inside_another() -> None:
    """A document and the key in it: the key is overwritten in either, wherever the reply is cut."""
    document = json.dumps({"private_key": "-----BEGIN-----\nMIIEvQ0123456789\n-----END-----\n"})
    pem = json.loads(document)["private_key"]
    needles = Needles([Secret(document), Secret(pem), Secret("ya29.token-0123456789")])
    reply = document.encode() + pem.encode()
    whole = passed(needles, [reply])
    assert b"MIIEvQ" not in whole
    assert len(whole) == len(reply)
    for cut in range(len(reply)):
        assert passed(needles, [reply[:cut], reply[cut:]]) == whole


def test_without_a_secret_everything_passes() -> None:
    """A provider without keys, and one whose key is too short to be looked for."""
    for needles in (Needles([]), Needles([Secret("ollama")])):
        assert needles.absent([b"ollama", b"anything", b""])
        assert passed(needles, [b"ollama"]) == b"ollama"
        assert needles.overwritten(b"ollama") == (b"ollama", 0)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text('ab-"', min_size=8, max_size=12), min_size=1, max_size=3),
    st.data(),
)
def test_any_keys_at_any_cuts(keys: list[str], data: st.DataObject) -> None:
    """However alike the keys are to each other and to what surrounds them, the cuts make no difference."""
    needles = Needles([Secret(key) for key in keys])
    parts = data.draw(st.lists(st.one_of(st.sampled_from(keys), st.text('ab-*"', max_size=6)), max_size=6))
    reply = "".join(parts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)), max_size=6)))
    pieces = [reply[start:end] for start, end in pairwise([0, *cuts, len(reply)])]
    whole = passed(needles, [reply])
    assert passed(needles, pieces) == whole
    assert len(whole) == len(reply)
    assert not any(key.encode() in whole for key in keys)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_compressed_reply_stops_at_a_key(coding: str) -> None:
    """What decodes to a key never passes whole, wherever it is cut; any other passes as it is."""
    compress = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}[coding]
    safe = compress(b"sk-own-" * 40 + b" and no more of it: sk-own")
    leaking = compress(b"Hello! " * 40 + KEY.encode() + b" Bye! " * 40)
    for cut in range(0, len(safe), 3):
        assert passed(NEEDLES, [safe[:cut], safe[cut:]], coding) == safe
    for cut in range(len(leaking)):
        redactor = Redactor(NEEDLES, coding)
        through = redactor.feed([leaking[:cut], leaking[cut:]], True)
        assert redactor.stuck
        assert KEY.encode() not in decoded(b"".join(through), coding)


def decoded(data: bytes, coding: str) -> bytes:
    """As much as can be read of a compressed text that breaks off."""
    if coding == "br":
        return bytes(brotli.Decompressor().process(data))
    return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data)


def test_a_compressed_piece_waits_for_what_may_become_a_key() -> None:
    """Where the decoded text ends like a key's beginning, the piece waits; for ever it does not."""
    stream = zlib.compressobj()
    begun = stream.compress(b"Hello sk-own-key") + stream.flush(zlib.Z_SYNC_FLUSH)
    rest = stream.compress(b"-0123456789-abcdefghij") + stream.flush(zlib.Z_SYNC_FLUSH)
    redactor = Redactor(NEEDLES, "deflate")
    assert redactor.feed([begun], False) == [b""]
    assert redactor.feed([rest], False) == [b""]
    assert redactor.stuck
    redactor = Redactor(NEEDLES, "deflate")
    assert redactor.feed([begun], True) == [b"", begun]
    redactor, empty = Redactor(NEEDLES, "deflate"), b"\0\0\0\xff\xff" * 1_000
    redactor.feed([begun], False)
    fed = 0
    while not redactor.stuck:
        redactor.feed([empty], False)
        fed += len(empty)
    assert fed < 100_000


def test_frames_with_checksums_are_not_changed() -> None:
    """Without leave to overwrite, everything before the key passes, and nothing from it on."""
    redactor = Redactor(NEEDLES, overwrites=False)
    assert redactor.feed([b"frame one", b"frame " + KEY.encode()[:20]], False) == [b"frame one", b"frame "]
    assert redactor.feed([KEY.encode()[20:] + b" and more", b"frame three"], True) == [b"", b"", b""]
    assert redactor.stuck
