"""Amazon Bedrock: frames, usage in headers, bodies and events, the bodies of Invoke, models in the path."""

from __future__ import annotations

import base64
import json
import random
import sys
from typing import Any

import pytest

from ownkey.errors import InvalidRequest
from ownkey.gateway.call import Call
from ownkey.gateway.dialects.bedrock import BEDROCK
from ownkey.gateway.dialects.bedrock_models import invoke_kind
from ownkey.gateway.event_frames import FrameCutter, FramesBroken, frame
from ownkey.gateway.readers import MOST_HELD
from ownkey.gateway.watch import ReplyWatch
from ownkey.metering.usage import Usage
from tests.unit.gateway.samples import call

FRAMES = "application/vnd.amazon.eventstream"
NOVA = "/model/amazon.nova-lite-v1%3A0"
CLAUDE = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0"
ASKED = {"messages": [{"role": "user", "content": [{"text": "x" * 400}]}]}


def event(name: str, body: dict[str, Any]) -> bytes:
    """One event, as AWS frames it."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, json.dumps(body, separators=(",", ":")).encode())


def chunk(body: dict[str, Any]) -> bytes:
    """One chunk of an Invoke, its JSON in base64."""
    inside = json.dumps(body, separators=(",", ":")).encode()
    return event("chunk", {"bytes": base64.b64encode(inside).decode(), "p": "abcdefgh"})


CONVERSE_STREAM = (
    event("messageStart", {"role": "assistant", "p": "ab"})
    + b"".join(event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}}) for word in ("Grü", "ße"))
    + event("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"reasoningContent": {"text": "hm"}}})
    + event("messageStop", {"stopReason": "end_turn"})
    + event(
        "metadata",
        {"metrics": {"latencyMs": 1}, "usage": {"inputTokens": 7, "outputTokens": 9, "cacheReadInputTokens": 3}},
    )
)
METRICS = {"inputTokenCount": 20, "outputTokenCount": 30, "invocationLatency": 1}
CLAUDE_STREAM = (
    chunk({"type": "message_start", "message": {"usage": {"input_tokens": 20, "output_tokens": 1}}})
    + chunk({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}})
    + chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 30}})
    + chunk({"type": "message_stop", "amazon-bedrock-invocationMetrics": METRICS})
)


def watched(asked: Call, pieces: list[bytes], *, finished: bool = True, content_type: str = FRAMES) -> Usage:
    """The usage of a reply that comes in these pieces."""
    watch = ReplyWatch(asked, content_type, "")
    for piece in pieces:
        watch.feed(piece)
        watch.output_so_far()
    return watch.usage(finished)


def converse_stream() -> Call:
    """A streamed Converse."""
    return call("bedrock", ASKED, f"{NOVA}/converse-stream")


def test_a_converse_stream_is_exact_however_it_is_cut() -> None:
    """Every single split, and every byte alone: the same figures, cached input in the whole."""
    wanted = Usage(10, 9, 3)
    for at in range(len(CONVERSE_STREAM) + 1):
        assert watched(converse_stream(), [CONVERSE_STREAM[:at], CONVERSE_STREAM[at:]]) == wanted
    assert watched(converse_stream(), [bytes([byte]) for byte in CONVERSE_STREAM]) == wanted
    assert watched(converse_stream(), [CONVERSE_STREAM], content_type="") == wanted


def test_an_invoke_stream_is_exact_and_broken_off_keeps_what_it_said() -> None:
    """The metrics of the last chunk count; before them, what the model's maker reported of input and output."""
    asked = call(
        "bedrock", {"anthropic_version": "x", "max_tokens": 99, **ASKED}, f"{CLAUDE}/invoke-with-response-stream"
    )
    assert asked.stream
    assert watched(asked, [CLAUDE_STREAM]) == Usage(20, 30)
    frames = list(FrameCutter(MOST_HELD).take(CLAUDE_STREAM))
    before = CLAUDE_STREAM[: -len(frame({}, frames[-1][1])) - len(frames[-1][0])]
    assert watched(asked, [before], finished=False) == Usage(20, 30)
    cut = watched(asked, [before[:300]], finished=False)
    assert cut.estimated
    assert cut.input_tokens == 20


def test_a_stream_that_breaks_off_is_estimated_by_its_text() -> None:
    """Without its last event a stream costs its request and what passed."""
    usage = watched(converse_stream(), [CONVERSE_STREAM[:-150]], finished=False)
    assert usage.estimated
    assert usage.input_tokens >= 100
    assert usage.output_tokens >= 3


@pytest.mark.parametrize("kind", ["exception", "error"])
def test_an_exception_in_the_stream_is_a_failure(kind: str) -> None:
    """An exception frame says that the provider failed, and alone costs nothing."""
    watch = ReplyWatch(converse_stream(), FRAMES, "")
    watch.feed(frame({":exception-type": "throttlingException", ":message-type": kind}, b'{"message":"slow"}'))
    assert watch.provider_failed
    assert watch.usage(True) == Usage()


def test_an_error_of_ours_fits_between_two_frames_only() -> None:
    """In the middle of a frame nothing can be added: then the broken connection says it."""
    whole = CONVERSE_STREAM[: CONVERSE_STREAM.index(b"\x00", 20)]
    watch = ReplyWatch(converse_stream(), FRAMES, "")
    watch.feed(event("messageStart", {"role": "assistant"}))
    assert watch.is_event_stream
    watch.feed(whole[:10])
    assert not watch.is_event_stream


def test_what_is_no_frame_is_counted_by_its_bytes() -> None:
    """Lengths that lie stop the reading, never the counting; nothing is raised and little is held."""
    draw = random.Random(5)  # noqa: S311
    for _ in range(200):
        junk = draw.randbytes(draw.randrange(1, 300))
        assert watched(converse_stream(), [CONVERSE_STREAM[:90], junk, junk], finished=False).total_tokens > 0
    with pytest.raises(FramesBroken):
        list(FrameCutter(MOST_HELD).take(b"\xff" * 64))


def test_a_large_frame_is_not_held() -> None:
    """Of a frame beyond a megabyte only its length is kept, and the next one is read."""
    watch = ReplyWatch(converse_stream(), FRAMES, "")
    large = event("contentBlockDelta", {"delta": {"text": "x" * 5_000_000}})
    for at in range(0, len(large), 65_536):
        watch.feed(large[at : at + 65_536])
        assert sys.getsizeof(watch._reader._cutter._held if watch._reader else b"") < 2 * MOST_HELD  # type: ignore[union-attr]
    watch.feed(CONVERSE_STREAM)
    assert watch.usage(True) == Usage(10, 9, 3)


BODIES = [
    (f"{NOVA}/converse", {"usage": {"inputTokens": 5, "outputTokens": 6, "totalTokens": 11}}, Usage(5, 6)),
    (
        f"{NOVA}/converse",
        {"usage": {"inputTokens": 5, "outputTokens": 6, "cacheWriteInputTokens": 4}},
        Usage(9, 6, 0, 4),
    ),
    (f"{NOVA}/converse", {"usage": {"inputTokens": 0, "outputTokens": 0}}, Usage(0, 0)),
    (f"{NOVA}/invoke", {"usage": {"inputTokens": 5, "outputTokens": 6, "cacheReadInputTokenCount": 2}}, Usage(7, 6, 2)),
    (f"{CLAUDE}/invoke", {"type": "message", "usage": {"input_tokens": 5, "output_tokens": 6}}, Usage(5, 6)),
    (
        "/model/meta.llama3/invoke",
        {"prompt_token_count": 5, "generation_token_count": 6, "generation": "x"},
        Usage(5, 6),
    ),
    ("/model/amazon.titan-tg1/invoke", {"inputTextTokenCount": 5, "results": [{"tokenCount": 6}]}, Usage(5, 6)),
    ("/model/amazon.titan-embed-text-v2/invoke", {"embedding": [0.5], "inputTextTokenCount": 5}, Usage(5, 0)),
    (
        "/model/openai.gpt-oss-120b-1%3A0/invoke",
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}},
        Usage(5, 6),
    ),
]


@pytest.mark.parametrize(("path", "reply", "usage"), BODIES)
def test_usage_of_a_plain_reply(path: str, reply: dict[str, Any], usage: Usage) -> None:
    """Every maker's own spelling is read, an explicit zero included; cached tokens are part of the input."""
    asked = call("bedrock", ASKED, path)
    assert watched(asked, [json.dumps(reply).encode()], content_type="application/json") == usage


def test_the_head_of_an_invoke_tells_what_the_body_does_not() -> None:
    """The counts in the headers are those that Amazon bills, cache reads and writes beside the input."""
    headers = [
        (b"x-amzn-bedrock-input-token-count", b"11"),
        (b"x-amzn-bedrock-output-token-count", b"12"),
        (b"x-amzn-bedrock-cache-read-input-token-count", b"2"),
        (b"x-amzn-bedrock-cache-write-input-token-count", b"3"),
    ]
    asked = call("bedrock", {"prompt": "x"}, "/model/cohere.command-light-text-v14/invoke")
    watch = ReplyWatch(asked, "application/json", "", headers)
    watch.feed(b'{"generations":[{"text":"x"}]}')
    assert watch.usage(True) == Usage(16, 12, 2, 3)
    assert BEDROCK.reported_in_headers([(b"x-amzn-bedrock-input-token-count", b"-1"), (b"date", b"1")]) is None


@pytest.mark.parametrize(
    ("model", "members", "kind"),
    [
        ("anthropic.claude-v2:1", {"prompt"}, "complete"),
        ("us.anthropic.claude-sonnet-4-6", {"messages"}, "messages"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-3-7", {"messages"}, "messages"),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.titan-tg1-large", {"inputText"}, "titan"),
        ("amazon.titan-embed-text-v2:0", {"inputText"}, "embeddings"),
        ("amazon.nova-2-multimodal-embeddings-v1:0", {"taskType"}, "embeddings"),
        ("us.cohere.embed-v4:0", {"texts"}, "embeddings"),
        ("cohere.rerank-v3-5:0", {"query"}, "embeddings"),
        ("amazon.titan-image-generator-v2:0", {"taskType"}, "bedrock_images"),
        ("stability.sd3-large-v1:0", {"prompt"}, "bedrock_images"),
        ("us.amazon.nova-lite-v1:0", {"messages"}, "nova"),
        ("meta.llama3-8b-instruct-v1:0", {"prompt"}, "llama"),
        ("ai21.j2-mid-v1", {"prompt"}, "jurassic"),
        ("ai21.jamba-1-5-mini-v1:0", {"messages"}, "raw_chat"),
        ("mistral.mistral-7b-instruct-v0:2", {"prompt"}, "raw_chat"),
        ("openai.gpt-oss-20b-1:0", {"messages"}, "raw_chat"),
        (
            "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc",
            {"anthropic_version", "messages"},
            "messages",
        ),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/abc", {"inferenceConfig"}, "nova"),
        ("arn:aws:bedrock:us-east-1:1:imported-model/abc", {"prompt"}, "invoke"),
    ],
)
def test_whose_body_an_invoke_has(model: str, members: set[str], kind: str) -> None:
    """The model's id tells, or else the body's own members; what nothing tells cannot be limited."""
    assert invoke_kind(model, members) == kind


LIMITS = [
    (f"{NOVA}/converse", {"inferenceConfig": {"maxTokens": 50}}, ("inferenceConfig", "maxTokens")),
    (f"{NOVA}/converse", {}, ("inferenceConfig", "maxTokens")),
    (f"{NOVA}/invoke", {"inferenceConfig": {"max_new_tokens": 50}}, ("inferenceConfig", "max_new_tokens")),
    (f"{CLAUDE}/invoke", {"max_tokens": 50}, ("max_tokens",)),
    (
        "/model/amazon.titan-tg1/invoke",
        {"textGenerationConfig": {"maxTokenCount": 50}},
        ("textGenerationConfig", "maxTokenCount"),
    ),
    ("/model/meta.llama3/invoke", {"max_gen_len": 50}, ("max_gen_len",)),
    ("/model/ai21.j2-mid-v1/invoke", {"maxTokens": 50}, ("maxTokens",)),
    ("/model/mistral.x/invoke", {"max_tokens": 50}, ("max_tokens",)),
]


@pytest.mark.parametrize(("path", "body", "place"), LIMITS)
def test_limits_stand_where_each_body_has_them(path: str, body: dict[str, Any], place: tuple[str, ...]) -> None:
    """An output limit is read, lowered or added where that body keeps it."""
    asked = call("bedrock", {**ASKED, **body}, path)
    assert asked.output_limit == (50 if body else None)
    assert asked.can_limit
    lowered: Any = json.loads(asked.with_output_limit(20))
    for name in place:
        lowered = lowered[name]
    assert lowered == 20


def test_an_unknown_body_is_all_or_nothing() -> None:
    """A model whose body we do not know cannot be limited, so the most it may write is reserved."""
    asked = call("bedrock", {"prompt": "x"}, "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aimported-model%2Fabc/invoke")
    assert not asked.can_limit
    assert asked.output_maximum() > 100_000


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (f"{NOVA}/converse", "amazon.nova-lite-v1:0"),
        ("/model/amazon.nova-lite-v1:0/converse", "amazon.nova-lite-v1:0"),
        (
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.anthropic.claude-3-7/converse",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-3-7",
        ),
    ],
)
def test_a_model_in_the_path(path: str, model: str) -> None:
    """Escaped or not, the model is the same for the record and for the price, and the path goes on as it came."""
    asked = call("bedrock", ASKED, path)
    assert (asked.model, asked.path, asked.endpoint.kind) == (model, path, "converse")


@pytest.mark.parametrize("bad", ["a%252Fb", "..%2Fx", "a%5Cb", "a%3Fb", "a%23b", "a%0Ab", "a%2F%2Fb", "a%20b"])
def test_a_bad_model_in_the_path_is_refused(bad: str) -> None:
    """A name that could be read as another path is refused before anything is sent."""
    with pytest.raises(InvalidRequest):
        call("bedrock", ASKED, f"/model/{bad}/converse")


def test_media_in_amazons_blocks() -> None:
    """Pictures and documents count by the table, whether they stand in the request or in a bucket."""
    plain = call("bedrock", ASKED, f"{NOVA}/converse").input_ceiling()
    block = {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://x/y"}}}}
    picture = call("bedrock", {"messages": [{"role": "user", "content": [block]}]}, f"{NOVA}/converse")
    assert picture.input_ceiling() > plain + 5_000
    result = {"toolResult": {"toolUseId": "t", "content": [{"document": {"source": {"bytes": "A" * 8_000}}}]}}
    document = call("bedrock", {"messages": [{"role": "user", "content": [result]}]}, f"{NOVA}/converse")
    assert document.input_ceiling() > 60_000
