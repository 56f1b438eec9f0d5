"""Watching a reply: exact where it is reported, estimated where it is not, bounded whatever comes."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from typing import Any

import brotli
import pytest

from ownkey.gateway.call import Call
from ownkey.gateway.estimates import KEPT_READ
from ownkey.gateway.watch import ReplyWatch
from ownkey.metering.usage import NOTHING_USED, Usage
from tests.unit.gateway.samples import (
    ANTHROPIC_STREAM,
    GEMINI_STREAM,
    OPENAI_STREAM,
    OPENAI_USAGE,
    call,
    events,
    gemini_chunk,
    named,
    openai_chunk,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

EVENTS, JSON = "text/event-stream; charset=utf-8", "application/json"
STREAMS = {"openai": OPENAI_STREAM, "anthropic": ANTHROPIC_STREAM, "gemini": GEMINI_STREAM}
EXACT = {"openai": Usage(25, 9, 8, 0, 4), "anthropic": Usage(15, 12, 5), "gemini": Usage(7, 11, 0, 0, 3)}


def streamed(slug: str) -> Call:
    """A streamed call of the usual kind."""
    if slug == "gemini":
        return call("gemini", {}, "/v1beta/models/m:streamGenerateContent?alt=sse")
    return call(slug, {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x" * 400}]})


def watched(
    call: Call, reply: bytes, content_type: str = EVENTS, encoding: str = "", *, finished: bool = True
) -> Usage:
    """The usage of a reply that comes in one piece."""
    watch = ReplyWatch(call, content_type, encoding)
    watch.feed(reply)
    return watch.usage(finished)


@pytest.mark.parametrize("slug", STREAMS)
@pytest.mark.parametrize("content_type", [EVENTS, JSON, ""])
@pytest.mark.parametrize("finished", [True, False])
def test_a_whole_stream_is_exact(slug: str, content_type: str, finished: bool) -> None:
    """What is reported at the end is the usage, whatever type the reply claims, even if the client left right then."""
    assert watched(streamed(slug), STREAMS[slug], content_type, finished=finished) == EXACT[slug]


@pytest.mark.parametrize("slug", STREAMS)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate", "two members", "br", "zstd"])
def test_a_compressed_stream_is_read_too(slug: str, encoding: str) -> None:
    """gzip and deflate (in both meanings of that word, in several members), brotli and zstd are decoded to read."""
    body = STREAMS[slug]
    bare = zlib.compressobj(wbits=-15)
    compressed = {
        "gzip": gzip.compress(body),
        "deflate": zlib.compress(body),
        "raw deflate": bare.compress(body) + bare.flush(),
        "two members": gzip.compress(body[:200]) + gzip.compress(body[200:]),
        "br": brotli.compress(body),
        "zstd": zstd.compress(body[:200]) + zstd.compress(body[200:]),
    }[encoding]
    name = "deflate" if "deflate" in encoding else encoding if encoding in ("br", "zstd") else "gzip"
    for cut in (1, 7, len(compressed) // 2):
        watch = ReplyWatch(streamed(slug), EVENTS, name)
        watch.feed(compressed[:cut])
        watch.feed(compressed[cut:])
        assert watch.usage(True) == EXACT[slug]


@pytest.mark.parametrize("encoding", ["compress", "gzip, gzip", ", ".join(["gzip"] * 50)])
def test_an_unknown_encoding_is_estimated(encoding: str) -> None:
    """What cannot be read is never free."""
    usage = watched(streamed("openai"), b"\x1b" * 400, encoding=encoding)
    assert (usage.output_tokens, usage.estimated) == (100, True)


@pytest.mark.parametrize("broken", [b"not gzip at all", gzip.compress(OPENAI_STREAM)[:-30], b"\x1f\x8b\x08"])
def test_broken_compression_is_estimated(broken: bytes) -> None:
    """A fault in the compression ends the reading, not the relaying."""
    usage = watched(streamed("openai"), broken, encoding="gzip")
    assert usage.input_tokens > 0
    assert usage.estimated


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_a_compression_bomb_is_bounded(encoding: str) -> None:
    """A megabyte that becomes a gigabyte is read up to a limit, and what was held stays small."""
    zeros = bytes(100_000_000)
    packed = {"gzip": gzip.compress, "br": lambda data: brotli.compress(data, quality=3), "zstd": zstd.compress}
    bomb = packed[encoding](zeros)
    watch = ReplyWatch(streamed("openai"), EVENTS, encoding)
    watch.feed(bomb)
    assert held(watch) < 4_000_000
    assert watch.usage(True).estimated


def test_a_frame_may_not_ask_for_gigabytes() -> None:
    """A zstd frame that wants a window of more than 8 MiB is not decoded, but estimated."""
    wide: dict[int, int] = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    usage = watched(streamed("openai"), zstd.compress(OPENAI_STREAM * 20_000, options=wide), encoding="zstd")
    assert usage.estimated


def test_a_plain_reply_is_exact() -> None:
    """One JSON document with usage needs nothing else, finished or not."""
    body = json.dumps({"choices": [{"finish_reason": "stop"}], "usage": OPENAI_USAGE}).encode()
    for finished in (True, False):
        assert watched(call(body={"model": "m"}), body, JSON, finished=finished) == EXACT["openai"]


def test_an_explicit_zero_is_zero() -> None:
    """A provider that says it charged nothing is believed."""
    body = b'{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}'
    assert watched(call(body={"model": "m"}), body, JSON) == Usage(0, 0)


@pytest.mark.parametrize(
    ("reply", "content_type", "output"),
    [
        (events(openai_chunk("x" * 40), "[DONE]"), EVENTS, 10),
        (events(*[openai_chunk("x")] * 30, "[DONE]"), EVENTS, 30),
        (events(*[openai_chunk(" 世界")] * 3, "[DONE]"), EVENTS, 6),
        (json.dumps({"choices": [{"message": {"content": "x" * 40}}]}).encode(), JSON, 10),
        (json.dumps({"choices": [{"message": {"content": "x" * 40}}], "usage": None}).encode(), JSON, 10),
        (b"plain text of some length", "text/plain", 7),
    ],
)
def test_missing_usage_is_estimated(reply: bytes, content_type: str, output: int) -> None:
    """Without a figure: the input from the request, the output from deltas or from a token for four bytes."""
    read = streamed("openai")
    assert watched(read, reply, content_type) == Usage(read.input_estimate(), output, estimated=True)
    assert read.input_estimate() > 100


def test_a_missing_part_is_estimated_and_the_rest_kept() -> None:
    """A report without input keeps its output; one without output keeps its input."""
    read = streamed("openai")
    assert watched(read, b'{"eval_count":38,"response":"x"}', JSON) == Usage(read.input_estimate(), 38, estimated=True)
    body = b'{"choices":[{"message":{"content":"' + b"x" * 40 + b'"}}],"usage":{"prompt_tokens":7}}'
    assert watched(read, body, JSON) == Usage(7, 10, estimated=True)
    embedding = call(body={"model": "m"}, path="/v1/embeddings")
    assert watched(embedding, b'{"data":[],"usage":{"prompt_tokens":7}}', JSON) == Usage(7, 0)


@pytest.mark.parametrize("size", [8_000, 1_300_000])
def test_a_picture_in_an_interrupted_stream_counts(size: int) -> None:
    """A picture that has passed counts as one, also where its event is too large to hold, or not at its end."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * size}}
    chunk = {"choices": [{"index": 0, "delta": {"content": "", "images": [image]}, "finish_reason": None}]}
    assert watched(streamed("openai"), events(chunk), finished=False).output_tokens == 1_056
    if size > 1_200_000:
        watch = ReplyWatch(streamed("openai"), EVENTS, "")
        for start in range(0, 1_200_000, 99_999):
            watch.feed(events(chunk)[start : start + 99_999])
        assert watch.output_so_far() == 1_056


def test_an_interrupted_anthropic_stream_knows_its_input() -> None:
    """The first event has the exact input; the output is what was seen, at least what was reported."""
    cut = ANTHROPIC_STREAM[: ANTHROPIC_STREAM.index(b"event: content_block_stop")]
    for finished in (True, False):
        assert watched(streamed("anthropic"), cut, finished=finished) == Usage(15, 5, 5, estimated=True)


def test_an_interrupted_gemini_stream_knows_its_input() -> None:
    """Reports are cumulative, so the last one is a floor of the output."""
    cut = GEMINI_STREAM[: GEMINI_STREAM.rindex(b"data:")]
    assert watched(streamed("gemini"), cut, finished=False) == Usage(7, 9, 0, 0, 3, estimated=True)
    longer = cut + events(*[{"candidates": [{"content": {"parts": [{"text": "y" * 400}]}}]}])
    assert watched(streamed("gemini"), longer, finished=False).output_tokens == 105


@pytest.mark.parametrize(
    ("slug", "path", "body"),
    [
        ("openai", "/v1/responses", {"model": "gpt-5", "previous_response_id": "resp_1", "input": "and now?"}),
        (
            "openai",
            "/v1/responses",
            {"model": "gpt-5", "input": [{"content": [{"type": "input_file", "file_id": "f"}]}]},
        ),
    ],
)
def test_an_interrupted_call_is_charged_for_what_it_only_named(slug: str, path: str, body: dict[str, Any]) -> None:
    """Nobody knows how long an earlier response or a file is that the provider keeps: it has a figure of its own."""
    read = call(slug, {**body, "stream": True}, path)
    reply = named("response.output_text.delta", {"delta": "word "}) * 50
    used = watched(read, reply, finished=False)
    assert KEPT_READ < used.input_tokens < KEPT_READ + 100
    assert used.output_tokens >= 50


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "x"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "A" * 100}},
        {"type": "input_audio", "input_audio": {"data": "A" * 1_000_000}},
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + "A" * 1_000_000}},
        {"type": "document", "source": {"data": "A" * 1_000_000}},
        {"type": "document_url", "document_url": "https://example.com/a.pdf"},
        {"inlineData": {"mimeType": "video/mp4", "data": "A" * 1_000_000}, "videoMetadata": {"fps": 24}},
    ],
)
@pytest.mark.parametrize("model", ["m", "gpt-3.5-turbo"])
def test_no_estimate_is_more_than_was_held(part: dict[str, Any], model: str) -> None:
    """Whatever is estimated of an interrupted call was within its ceiling when it was admitted."""
    body = {"model": model, "stream": True, "previous_response_id": "resp_1"}
    read = call(body={**body, "max_tokens": 50, "messages": [{"role": "user", "content": [part] * 4}]})
    used = watched(read, OPENAI_STREAM[:150] + b"A" * 1_000_000, finished=False)
    assert 0 < used.input_tokens <= read.input_ceiling()
    assert used.output_tokens <= 50


def test_a_cut_gemini_array_is_charged_for_what_came() -> None:
    """A JSON array that breaks off counts its last whole report and the text since."""
    body = json.dumps([gemini_chunk("a" * 40, 10), gemini_chunk("b" * 400, 12)]).encode()
    usage = watched(streamed("gemini"), body[: body.rindex(b"usageMetadata")], JSON, finished=False)
    assert usage == Usage(7, 110, 0, 0, 3, estimated=True)


@pytest.mark.parametrize("slug", STREAMS)
def test_wherever_a_stream_breaks_something_is_charged(slug: str) -> None:
    """At every byte: no exception, input never zero, output never falls and never exceeds the whole by much."""
    stream, last = STREAMS[slug], 0
    for cut in range(len(stream) + 1):
        usage = watched(streamed(slug), stream[:cut], finished=False)
        assert usage.input_tokens > 0
        last = max(last, usage.output_tokens)
        assert usage.output_tokens >= min(last, 1)
    assert last <= EXACT[slug].output_tokens + 5


@pytest.mark.parametrize("slug", STREAMS)
def test_the_count_so_far_never_falls(slug: str) -> None:
    """Asked after every byte, the count grows, and asking changes nothing of the usage."""
    watch = ReplyWatch(streamed(slug), EVENTS, "")
    counts = []
    for byte in STREAMS[slug]:
        watch.feed(bytes([byte]))
        counts.append(watch.output_so_far())
    assert counts == sorted(counts)
    assert counts[-1] > 0
    assert watch.usage(True) == EXACT[slug]


def test_an_estimate_stays_below_the_callers_limit() -> None:
    """A model that may write ten tokens is not estimated to have written more."""
    read = call(body={"model": "m", "stream": True, "max_tokens": 10})
    assert watched(read, events(openai_chunk("x" * 4_000)), finished=False).output_tokens == 10
    both = call(body={"model": "m", "stream": True, "max_tokens": 10, "n": 2})
    assert watched(both, events(openai_chunk("x" * 4_000)), finished=False).output_tokens == 20


@pytest.mark.parametrize(
    "reply",
    [
        b'{"error":{"message":"no","code":402}}',
        events({"error": {"message": "no"}}),
        named("response.created", {"response": {"usage": None}}) + named("error", {"code": "x", "error": {}}),
    ],
)
def test_a_refusal_under_status_200_costs_nothing(reply: bytes) -> None:
    """A reply that is only an error generated nothing."""
    watch = ReplyWatch(streamed("openai"), JSON if reply[:1] == b"{" else EVENTS, "")
    watch.feed(reply)
    assert watch.usage(True) == NOTHING_USED
    assert watch.provider_failed


def test_an_error_after_some_text_is_charged_for_the_text() -> None:
    """What was generated before a failure is charged, and the failure is seen."""
    watch = ReplyWatch(streamed("openai"), EVENTS, "")
    watch.feed(events(openai_chunk("x" * 40), {"error": {"message": "overloaded"}}))
    assert watch.provider_failed
    usage = watch.usage(False)
    assert (usage.output_tokens, usage.estimated) == (10, True)
    calm = ReplyWatch(streamed("openai"), EVENTS, "")
    calm.feed(OPENAI_STREAM)
    assert not calm.provider_failed


def test_a_call_that_generates_nothing_uses_nothing() -> None:
    """A stored answer that is only looked at again is not charged again."""
    read = call(path="/v1/responses/resp_1", method="GET")
    assert watched(read, json.dumps({"usage": OPENAI_USAGE}).encode(), JSON) == NOTHING_USED


@pytest.mark.parametrize(
    ("path", "reply", "content_type", "output"),
    [
        ("/v1/images/generations", b'{"data":[{"url":"https://example.com"}]}', JSON, 2_112),
        ("/v1/audio/speech", b"\xff\xfb" * 5_000, "audio/mpeg", 10),
        ("/v1/audio/transcriptions", b'{"text":"twelve gulls"}', JSON, 3),
        ("/v1/audio/transcriptions", b"twelve gulls", "text/plain", 3),
        ("/v1/audio/transcriptions", b"[Music] twelve gulls", "text/plain; charset=utf-8", 5),
        ("/v1/audio/transcriptions", b"{laughs} twelve gulls", "text/vtt", 6),
        ("/v1/audio/transcriptions", b"id: twelve gulls\n\n", "text/plain", 5),
        ("/v1/embeddings", b'{"data":[{"embedding":[0.1,0.2]}]}', JSON, 0),
    ],
)
def test_what_is_not_chat_has_figures_of_its_own(path: str, reply: bytes, content_type: str, output: int) -> None:
    """Images, speech, transcripts and embeddings without usage are estimated as what they are."""
    read = call(body={"model": "m", "input": "x", "n": 2}, path=path)
    assert watched(read, reply, content_type) == Usage(read.input_estimate(), output, estimated=True)


@pytest.mark.parametrize(
    ("reply", "output"),
    [
        ({"pages": [{"index": 0, "markdown": "text " * 8_000}]}, 10_011),
        ({"base64": ["A" * 400_000], "finishReason": "SUCCESS"}, 1_056 + 11),
        ({"audio": "A" * 4_000_000}, 3_000 + 4),
        ({"vectors": [[0.25] * 4_000]}, 6_004),
        ({"markdown": "text " * 8_000, "usage": {"prompt_tokens": 7, "completion_tokens": 5}}, 5),
    ],
)
def test_all_of_an_unknown_reply_counts(reply: dict[str, Any], output: int) -> None:
    """At a path that we do not know, whatever comes was written by somebody, unless usage says how much was."""
    read = call("mistral", {"model": "m"}, "/v1/unheard-of")
    whole = json.dumps(reply).encode()
    usage = watched(read, whole, JSON)
    assert (usage.output_tokens, usage.estimated) == (output, "usage" not in reply)
    watch = ReplyWatch(read, JSON, "")
    for start in range(0, len(whole), 99_999):
        watch.feed(whole[start : start + 99_999])
        watch.output_so_far()
    assert watch.usage(True) == usage


def test_a_refusal_at_an_unknown_path_costs_nothing() -> None:
    """A reply that is only an error generated nothing there, either."""
    read = call("mistral", {"model": "m"}, "/v1/unheard-of")
    assert watched(read, b'{"error":{"message":"no","code":402}}', JSON) == NOTHING_USED


def held(watch: ReplyWatch) -> int:
    """Bytes that a watch keeps, counted through everything it refers to."""
    seen: set[int] = set()

    def size(thing: Any, depth: int = 0) -> int:
        if id(thing) in seen or depth > 5 or isinstance(thing, type | Call):
            return 0
        seen.add(id(thing))
        inside: list[Any] = list(thing) if isinstance(thing, list | tuple) else []
        if hasattr(thing, "__dict__"):
            inside += vars(thing).values()
        inside += [getattr(thing, name) for name in getattr(type(thing), "__slots__", ()) if hasattr(thing, name)]
        return sys.getsizeof(thing) + sum(size(one, depth + 1) for one in inside)

    return size(watch)


def flood(beginning: bytes, filling: bytes, end: bytes, times: int) -> Any:
    """Pieces of a reply that is far too large to hold."""
    yield beginning
    for _ in range(times):
        yield filling
    yield end


@pytest.mark.parametrize("usage_first", [True, False])
@pytest.mark.parametrize("size", [100, 5_000_000])
def test_what_a_tool_drew_counts_beside_a_picture_of_any_size(size: int, usage_first: bool) -> None:
    """The tokens of a picture that a tool drew are added, also where the reply is too large to hold, in any order."""
    counts: list[tuple[str, Any]] = [
        ("usage", {"input_tokens": 9, "output_tokens": 5}),
        ("tool_usage", {"image_gen": {"input_tokens": 50, "output_tokens": 6_240, "total_tokens": 6_290}}),
    ]
    picture = {"type": "image_generation_call", "result": "A" * size}
    reply = {"status": "completed", "output": [picture], **dict(counts if usage_first else counts[::-1])}
    asked = call("openai", {"model": "m", "input": "a cat"}, "/v1/responses")
    assert watched(asked, json.dumps(reply).encode(), JSON) == Usage(59, 6_245)
    assert watched(asked, named("response.completed", {"response": reply})) == Usage(59, 6_245)


LARGE_USAGE = b'"usage":{"prompt_tokens":5,"completion_tokens":6}}'


@pytest.mark.parametrize(
    ("content_type", "beginning", "end"),
    [
        (JSON, b'{"data":[{"b64_json":"', b'"}],' + LARGE_USAGE),
        (EVENTS, b'data: {"type":"x","b64":"', b'",' + LARGE_USAGE + b"\n\ndata: [DONE]\n\n"),
        (EVENTS, b'data: {"type":"x","b64":"', b'",' + LARGE_USAGE),
        (EVENTS, b'event: e\r\ndata: {"type":"x","b64":"', b'",' + LARGE_USAGE + b"\r\n\r\ndata: [DONE]\r\n\r\n"),
    ],
)
def test_a_huge_reply_is_exact_and_not_held(content_type: str, beginning: bytes, end: bytes) -> None:
    """Twenty megabytes in one document or one event: usage at its end is found, and little is kept."""
    watch = ReplyWatch(streamed("openai"), content_type, "")
    most = 0
    for piece in flood(beginning, b"A" * 65_536, end, 320):
        watch.feed(piece)
        most = max(most, held(watch))
    assert watch.usage(True) == Usage(5, 6)
    assert most < 3_000_000


def test_a_huge_line_of_nothing_is_estimated_and_not_held() -> None:
    """Ten megabytes without an end of line, and single bytes by the hundred thousand, stay bounded."""
    watch = ReplyWatch(streamed("openai"), EVENTS, "")
    for piece in flood(b"data: ", b"x" * 65_536, b"", 160):
        watch.feed(piece)
        assert held(watch) < 3_000_000
    assert watch.usage(False).estimated
    watch = ReplyWatch(streamed("openai"), EVENTS, "")
    for _ in range(100_000):
        watch.feed(b"d")
    assert held(watch) < 1_000_000


def test_many_small_events_are_not_held() -> None:
    """A stream of any length keeps only what it needs."""
    watch = ReplyWatch(streamed("openai"), EVENTS, "")
    piece = events(*[openai_chunk("word ")] * 20)
    for _ in range(1_000):
        watch.feed(piece)
        assert held(watch) < 700_000
    watch.feed(OPENAI_STREAM)
    assert watch.usage(True) == EXACT["openai"]
    assert watch.output_so_far() > 20_000


def test_what_is_an_event_stream_is_told_by_its_type() -> None:
    """Only there an error of ours can be one more event."""
    assert ReplyWatch(streamed("openai"), EVENTS, "identity").is_event_stream
    assert not ReplyWatch(streamed("openai"), JSON, "").is_event_stream


def test_a_large_compressed_reply_is_read_on_the_way() -> None:
    """A reply that unpacks to more than is put aside is read piece by piece."""
    body = events(*[openai_chunk("word " * 50)] * 2_000) + OPENAI_STREAM
    assert watched(streamed("openai"), gzip.compress(body), encoding="gzip") == EXACT["openai"]


@pytest.mark.parametrize("slug", STREAMS)
def test_bad_characters_do_no_harm(slug: str) -> None:
    """Text that is no UTF-8 is counted by its bytes, and usage after it is found."""
    stream = STREAMS[slug].replace("Grüße".encode(), b"Gr\xfc\xdfe").replace("Zwölf".encode(), b"Zw\xf6lf")
    assert stream != STREAMS[slug]
    assert watched(streamed(slug), stream) == EXACT[slug]
    watch = ReplyWatch(streamed(slug), EVENTS, "")
    watch.feed(stream)
    assert watch.output_so_far() >= 2
    assert watch.usage(True) == EXACT[slug]


def test_blank_bytes_before_a_reply_are_not_waited_out() -> None:
    """After 256 bytes a reply is read whatever they are: the rest of it is counted as it passes."""
    watch = ReplyWatch(call("openai", {"model": "m", "input": "x"}, "/v1/audio/speech"), "audio/mpeg", "")
    watch.feed(b" " * 200)
    assert watch.output_so_far() == 0
    watch.feed(b"\r\n" * 28)
    for number in range(1, 5):
        watch.feed(b"s" * 10_000)
        assert watch.output_so_far() == 10 * number + 1


@pytest.mark.parametrize("content", [b'data: {"error":{}}\n\n', b'{"error":{}}', b"[[],[],"])
def test_a_reply_that_costs_nothing_is_not_looked_at(content: bytes) -> None:
    """A file's content is nobody's answer: no byte of it is kept or read, whatever it looks like."""
    watch = ReplyWatch(call("openai", b"", "/v1/files/file-1/content", "GET"), JSON, "")
    before = sys.getrefcount(content)
    watch.feed(content)
    assert sys.getrefcount(content) == before
    assert (watch.output_so_far(), watch.provider_failed) == (0, False)
    assert watch.usage(True) == NOTHING_USED
