"""Multipart forms: sound to transcribe, images to edit."""

from __future__ import annotations

import pytest

from ownkey.errors import InvalidRequest
from ownkey.gateway.ceilings import SOUND_ELSEWHERE
from ownkey.gateway.model_limits import UNKNOWN
from ownkey.gateway.multipart_fields import read_form
from tests.unit.gateway.samples import call, steps

BOUNDARY = "x-boundary-1"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def form(*parts: tuple[str, bytes], files: dict[str, tuple[str, bytes]] | None = None) -> bytes:
    """A form with these fields and files (name to media type and content)."""
    body = b""
    for name, value in parts:
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
    for name, (kind, value) in (files or {}).items():
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n'.encode()
        body += f"Content-Type: {kind}\r\n\r\n".encode() + value + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


SOUND = {"file": ("audio/mpeg", b"\xff\xfb" * 8_000)}


@pytest.mark.parametrize(
    ("slug", "path", "field"),
    [
        ("groq", "/openai/v1/audio/transcriptions", ("url", b"https://example.com/a.mp3")),
        ("mistral", "/v1/audio/transcriptions", ("file_url", b" HTTPS://example.com/a.mp3")),
        ("mistral", "/v1/audio/transcriptions", ("file_id", b"f-1")),
    ],
)
def test_sound_that_is_only_named_counts_by_table(slug: str, path: str, field: tuple[str, bytes]) -> None:
    """Hours of sound may lie at an address of a few bytes; without figures of the provider it counts as minutes."""
    read = call(slug, form(("model", b"m"), field), path, content_type=FORM)
    assert read.input_ceiling() == len(read.body) + SOUND_ELSEWHERE
    assert 3_000 <= read.input_estimate() < 4_000
    text = call(slug, form(("model", b"m"), ("language", b"en"), ("url", b"")), path, content_type=FORM)
    assert text.input_ceiling() == len(text.body)


def transcribe(body: bytes, content_type: str = FORM) -> object:
    """A transcription call with this body."""
    return call("openai", body, "/v1/audio/transcriptions", content_type=content_type)


def test_fields_are_read_from_the_form() -> None:
    """Model, streaming and number of answers stand in plain fields; files are only measured."""
    read = call(
        "openai",
        form(("model", b"gpt-4o-transcribe"), ("stream", b"true"), files=SOUND),
        "/v1/audio/transcriptions",
        content_type=FORM,
    )
    assert (read.model, read.stream, read.can_limit) == ("gpt-4o-transcribe", True, False)
    assert 1_000 <= read.input_ceiling() < 2_000
    assert 1 <= read.input_estimate() <= 100
    images = form(("model", b"gpt-image-1"), ("n", b"3"), files={"image": ("image/png", b"p" * 100_000)})
    read = call("openai", images, "/v1/images/edits", content_type=FORM)
    assert read.choices == 3
    assert UNKNOWN.image < read.input_ceiling() < UNKNOWN.image + 1_000


@pytest.mark.parametrize(
    "body",
    [
        form(("model", b"a"), ("model", b"b"), files=SOUND),
        form(("model", b"../x"), files=SOUND),
        form(("stream", b"maybe"), files=SOUND),
        form(("n", b"0")),
        form(("n", b"129")),
        form(("n", b"00000000199")),
        form(files={"model": ("text/plain", b"a")}),
        form(("model", b"a"))[:-10],
        b"",
        b"nothing of the kind",
        form(("model", b"a")).replace(b'name="model"', b"name*=utf-8''model; name=x"),
        form(("model", b"a")).replace(b"\r\n\r\n", b'\r\nContent-Disposition: form-data; name="x"\r\n\r\n', 1),
        b"--x-boundary-1\r\n\r\na\r\n--x-boundary-1--\r\n",
        form(*[("x", b"")] * 1_001),
        form(("model", b"a")).replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 4_096 + b"\r\n\r\n", 1),
        form(("model", b"a")).replace(b'"model"', b'"model"' + b'; x="a"' * 16),
        form(("model", b"a")).replace(b"\r\n\r\n", b"\r\n folded: x\r\n\r\n", 1),
        form(("model", b"a")).replace(b"Content", b"--x-boundary-1\r\nContent", 1),
        form(("model", b"a\r\n--x-boundary-12\r\nb")),
        form(("model", b"a\r\n--x-boundary-1 \r\nb")),
        form(("model", b"a\r\n--x-boundary-1")),
        form(("model", b"--x-boundary-1\r\nb")),
        form(("model", b"a")).replace(b"--\r\n", b"--x\r\n"),
    ],
)
def test_an_unclear_form_is_refused(body: bytes) -> None:
    """A field that is there twice, of the wrong kind, or a form that is not whole: we would have to guess."""
    if body:
        with pytest.raises(InvalidRequest):
            transcribe(body)


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", 'multipart/form-data; boundary=""', "multipart/x; y=z"]
)
def test_a_form_needs_a_boundary(content_type: str) -> None:
    """Without one nobody can tell the parts."""
    with pytest.raises(InvalidRequest, match="boundary"):
        transcribe(form(("model", b"a")), content_type)


def test_a_large_file_is_not_copied() -> None:
    """Of a file only its length is kept."""
    parts = read_form(FORM, form(("model", b"a"), files={"file": ("audio/wav", b"s" * 5_000_000)}))
    assert [(part.name, part.length, len(part.value)) for part in parts] == [("model", 1, 1), ("file", 5_000_000, 0)]


def test_other_headers_of_a_part_are_passed_over() -> None:
    """Only its name and its media type matter."""
    body = form(("model", b"a")).replace(b"\r\n\r\n", b"\r\nContent-Language: en\r\n\r\n", 1)
    assert [(part.name, part.value) for part in read_form(FORM, body)] == [("model", b"a")]
    images = form(files={"image": ("image/png", b"p" * 100_000)})
    assert call("openai", images, "/v1/images/edits", content_type=FORM).input_estimate() == 1_024


def test_a_form_ends_where_every_reader_ends_it() -> None:
    """Line ends before the first boundary and whatever comes after the last are no part of it; content may be blank."""
    body = b"\r\n\r\n" + form(("model", b""), ("prompt", b"\r\n--x-boundary-\r\n"))
    expected = [("model", b""), ("prompt", b"\r\n--x-boundary-\r\n")]
    for end in (b"", b"\r\nwhat follows"):
        parts = read_form(FORM, body + end)
        assert [(part.name, part.value) for part in parts] == expected
    assert [part.name for part in read_form(FORM, body[:-2])] == ["model", "prompt"]


@pytest.mark.parametrize("content", [b"\r\n--x-boundary-2", b"\r\n--", b"\r", b"\r\n\r\n", b"-", b"\0"])
def test_a_form_is_searched_and_not_stepped_through(content: bytes) -> None:
    """However much of a file looks like a boundary, reading it takes no step in Python for each of its bytes."""
    forms = [form(files={"file": ("audio/wav", content * (size // len(content)))}) for size in (1_000, 1_000_000)]
    assert steps(lambda: read_form(FORM, forms[0])) == steps(lambda: read_form(FORM, forms[1]))
