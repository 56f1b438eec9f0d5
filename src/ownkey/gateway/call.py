"""Call: the few fields we read from a request; the body stays bytes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

import msgspec

from ownkey.errors import InvalidRequest
from ownkey.gateway import ceilings, estimates
from ownkey.gateway import headers as header_rules
from ownkey.gateway.dialects.bedrock_models import INVOKE, invoke_kind
from ownkey.gateway.endpoints import Endpoint, find_endpoint, model_in_path
from ownkey.gateway.media import Media, media_in
from ownkey.gateway.multipart_fields import Part, only_value, read_form
from ownkey.gateway.request_body import Body
from ownkey.gateway.request_fields import (
    DEFAULT_CHOICES,
    FORMS,
    LARGEST_LIMIT,
    MOST_CHOICES,
    NO_FORM,
    STREAMS_UNLESS_TOLD,
    decode_body,
    flag,
    invalid,
    members,
    model_name,
    one_of,
    prompts,
    refuse_repetitions,
    refuse_too_many_values,
    section_of,
)
from ownkey.providers.provider import Provider

Headers = Sequence[tuple[bytes, bytes]]

# The fewest output tokens worth an answer, where an allowance is nearly used up. OpenAI's Responses refuse fewer.
LEAST_OUTPUT = 16
_NO_FIELDS = Body()


@dataclass(slots=True, eq=False)
class Head:
    """What is read of a request's head; the same for every request that repeats it.

    ``path`` and ``query`` are what follows ``/<slug>``, the query without the caller's credential. ``model`` is the
    one the path names, or empty. ``verb`` and ``target`` are what stands before and after an address's own prefix in
    the provider's request line, ``passed_on`` the header lines that it gets.
    """

    provider: Provider
    method: str
    path: str
    query: str
    endpoint: Endpoint
    model: str
    content_type: str
    is_encoded: bool
    verb: bytes
    target: bytes
    passed_on: bytes


class Call:
    """One AI request, as far as we look into it.

    ``output_limit`` is the caller's own cap for one choice, None if there is none; ``choices`` how many answers are
    asked for. ``reports_usage`` says that a streamed reply will carry usage without our help.
    """

    # Most calls leave these as they are.
    stream = False
    reports_usage = True
    output_limit: int | None = None
    choices = 1
    least_output: int
    form: list[Part] | None = None
    fields: Body
    may_have_media = False
    media: Media
    _ceiling: int | None = None

    def __init__(self, head: Head, body: bytes) -> None:
        self.head = head
        self.provider = head.provider
        self.endpoint = head.endpoint
        self.model = head.model
        self.body = body
        self.fields = _NO_FIELDS
        self.media = ()
        self.least_output = LEAST_OUTPUT

    @property
    def method(self) -> str:
        """The request's method."""
        return self.head.method

    @property
    def path(self) -> str:
        """The provider's own path."""
        return self.head.path

    @property
    def query(self) -> str:
        """What stands behind the path, without the caller's credential."""
        return self.head.query

    @property
    def can_limit(self) -> bool:
        """Whether ``with_output_limit`` can cap this call; else all or nothing is admitted."""
        return self.form is None and bool(FORMS.get(self.endpoint.kind, NO_FORM).limits)

    def input_ceiling(self) -> int:
        """Never fewer than the call's input tokens: its bytes, media and unseen content by table (``ceilings``)."""
        if self._ceiling is None:
            if not self.endpoint.generates:
                self._ceiling = 0
            elif self.form is not None:
                self._ceiling = ceilings.form_ceiling(self.form, len(self.body))
            else:
                self._ceiling = ceilings.input_ceiling(
                    self.endpoint.kind, self.model, self.body, self.fields, self.media
                )
        return self._ceiling

    def input_estimate(self) -> int:
        """About the call's input tokens, at least 1, for a reply that does not tell."""
        if not self.endpoint.generates:
            return 0
        if self.form is not None:
            return estimates.form_tokens(self.form)
        return min(estimates.input_tokens(self.body, self.media), max(self.input_ceiling(), 1))

    def output_maximum(self) -> int:
        """The most output tokens that one choice can have when the caller sets no limit."""
        # Of a list of models nobody knows beforehand which one answers.
        model = "" if self.fields.models else self.model
        return ceilings.output_maximum(self.endpoint.kind, model, bool(self.body))

    def outgoing_body(self, limit: int | None, held: int) -> bytes:
        """The caller's body, with what the allowance and the metering need; raises ``InvalidRequest``.

        ``limit`` caps each choice's output, and from now on its estimate, too. Where tokens are ``held`` for it, the
        caller's own limit is written as the provider reads it.
        """
        body = self.body
        if limit is None and held and self._limits_by_another_name():
            limit = self.output_limit
        if limit is not None:
            body = self.with_output_limit(limit)
            self.output_limit = limit
        return body if self.reports_usage or not self.stream else self.with_usage_reported(body)

    def with_output_limit(self, limit: int) -> bytes:
        """The body with its output capped at ``limit`` tokens a choice; a lower cap of the caller stays.

        Every other member keeps the bytes of its value. A call that cannot be limited comes back as it is.
        """
        form = FORMS.get(self.endpoint.kind, NO_FORM)
        if not self.can_limit:
            return self.body
        body = members(self.body)
        if not form.section:
            if self._limits_by_another_name():
                del body["max_completion_tokens"]
            return msgspec.json.encode(_lowered(body, self._limit_fields(), limit))
        given = [name for name in form.section if _is_given(body, name)]
        section = given[0] if given else form.section[0]
        inside = members(body[section]) if given else {}
        others = {name: value for name, value in body.items() if name not in form.section}
        return msgspec.json.encode({**others, section: _lowered(inside, form.limits, limit)})

    def _limits_by_another_name(self) -> bool:
        """Whether a chat has its only limit in a member that its provider, which reads ``max_tokens``, may ignore."""
        if self.endpoint.kind not in ("chat", "raw_chat") or self._limit_fields()[0] != "max_tokens":
            return False
        return self.fields.max_tokens is None and self.fields.max_completion_tokens is not None

    def _limit_fields(self) -> tuple[str, ...]:
        """The members that cap the output; the first is the one to add where there is none."""
        fields = FORMS[self.endpoint.kind].limits
        if self.endpoint.kind == "chat" and self.provider.chat_limit == "max_tokens":
            return ("max_tokens", "max_completion_tokens")
        return fields

    def with_usage_reported(self, body: bytes) -> bytes:
        """``body`` with ``stream_options.include_usage``, its other members untouched."""
        found = members(body)
        options = members(found["stream_options"]) if _is_given(found, "stream_options") else {}
        return msgspec.json.encode({**found, "stream_options": {**options, "include_usage": True}})


def _is_given(found: dict[str, msgspec.Raw], name: str) -> bool:
    return bytes(found.get(name, b"null")) != b"null"


def _lowered(found: dict[str, msgspec.Raw], names: tuple[str, ...], limit: int) -> dict[str, object]:
    lowered: dict[str, object] = {**found}
    present = [name for name in names if _is_given(found, name)]
    for name in present:
        if not 0 <= int(bytes(found[name])) <= limit:  # a negative one stands for no limit
            lowered[name] = limit
    if not present:
        lowered[names[0]] = limit
    return lowered


# A path that could be read as another one by whoever handles it next.
_AMBIGUOUS = re.compile(r"[\\?#%\x00-\x20\x7f]|//|/\.{1,2}(/|$)")
# What leaves parts out of Google's replies or gives them another form: then there is no usage to be read in them
# (https://cloud.google.com/apis/docs/system-parameters). Its own clients ask for ``$alt=json;enum-encoding=int``.
_NOT_THE_WHOLE = re.compile(r"(?:^|[&;])\$?(?:(fields|callback)=|(alt)=(?!(?:json|sse)(?:[&;]|$)))", re.IGNORECASE)
_API_VERSION = re.compile(r"(?:^|&)api-version=([0-9]{4}-[0-9]{2}-[0-9]{2})")
_JSON_KINDS = frozenset({*FORMS, "compact", "embeddings", "speech"}) - {"images"}
_LONGEST_REMEMBERED = 500
_USAGE_ON_REQUEST = ("chat", "completions")


@lru_cache(2_048)
def _located(provider: Provider, method: str, path: str) -> tuple[Endpoint, str]:
    """The endpoint at a path, whose escapes are undone once, and the model that the path names."""
    plain = unquote(path, errors="replace") if "%" in path else path
    if not plain.startswith("/") or not plain.isascii() or _AMBIGUOUS.search(plain):
        raise InvalidRequest("The path is not a plain one: use the provider's own path, without '..' or '//'.")
    plain = plain.removesuffix("/") or plain  # most servers take it for the same path
    endpoint = find_endpoint(provider, method, plain)
    return endpoint, model_name(model_in_path(provider, plain))


def without_key(query: str) -> str:
    """The query less every ``key`` parameter, however it is written: a client's credential never goes upstream."""
    if "key" not in query.lower() and "%" not in query:
        return query
    return "&".join(pair for pair in query.split("&") if unquote(pair.partition("=")[0]).lower() != "key")


def _refuse_partial_replies(query: str) -> None:
    asked = _NOT_THE_WHOLE.search(unquote(query))
    if asked is not None:
        name = asked[1] or asked[2]
        raise invalid(f"Leave out the parameter {name!r}: a call is metered by the usage in its whole reply.", name)


def read_head(provider: Provider, method: str, path: str, query: str, headers: Headers) -> Head:
    """Read the head of a request to ``provider``; ``path`` and ``query`` are what follows ``/<slug>`` in its address.

    Raises ``InvalidRequest`` for what we would have to guess about.
    """
    # What is long is not worth remembering.
    locate = _located if len(path) <= _LONGEST_REMEMBERED else _located.__wrapped__
    endpoint, model = locate(provider, method, path)
    content_type, is_encoded = "", False
    for name, value in headers:
        if name == b"content-type":
            if content_type:
                raise InvalidRequest("The request has two Content-Type headers.")
            content_type = value.decode("latin-1")
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            is_encoded = True
        elif name == b"upgrade" and b"websocket" in value.lower():
            endpoint = Endpoint("realtime", endpoint.dialect, generates=True, refused=True)
    query = without_key(query) if query else ""
    if query and provider.dialect == "gemini" and endpoint.generates:
        _refuse_partial_replies(query)
    return Head(
        provider,
        method,
        path,
        query,
        endpoint,
        model,
        content_type,
        is_encoded,
        verb=f"{method} ".encode("ascii"),
        target=f"{path}{'?' if query else ''}{query} HTTP/1.1\r\n".encode("latin-1"),
        passed_on=header_rules.request_block(headers),
    )


def read_body(head: Head, body: bytes) -> Call:
    """The call that a request with this head and body makes.

    Raises ``InvalidRequest`` for what we would have to guess about: a body that is not the JSON object (or form) its
    endpoint takes, a member we act on that is there twice, or of the wrong type, or absurd.
    """
    if head.is_encoded and body:
        raise InvalidRequest("Send the request body uncompressed.")
    call = Call(head, body)
    endpoint = head.endpoint
    if not endpoint.generates:
        call.model = ""
    elif body and head.content_type[:10].lower() == "multipart/":
        _read_form(call)
    elif body or endpoint.kind in _JSON_KINDS:
        refuse_too_many_values(body)
        if endpoint.kind == "unknown":
            with contextlib.suppress(InvalidRequest):  # what its members mean is the provider's business
                _read_json(call)
        else:
            _read_json(call)
        if call.may_have_media:
            call.media = media_in(body)
    return call


def read_call(provider: Provider, method: str, path: str, query: str, headers: Headers, body: bytes) -> Call:
    """Read a whole request: ``read_head``, then ``read_body``."""
    return read_body(read_head(provider, method, path, query, headers), body)


def _read_json(call: Call) -> None:
    kind = call.endpoint.kind
    body = decode_body(kind, call.body)
    if kind == INVOKE:
        kind = invoke_kind(call.model, members(call.body))
        call.endpoint = call.endpoint.of_kind(kind)
        body = decode_body(kind, call.body)
    call.fields, call.may_have_media = body, refuse_repetitions(kind, call.body)
    form = FORMS.get(kind, NO_FORM)
    section = section_of(body, form)
    call.output_limit = one_of(section, form.limits, LARGEST_LIMIT)
    call.choices = one_of(section, form.choices, MOST_CHOICES) or DEFAULT_CHOICES.get(kind, 1)
    if kind == "completions":
        call.choices *= prompts(body.prompt)
    _read_model(call, body)
    if call.endpoint.streams is not None:
        call.stream = call.endpoint.streams
    else:
        call.stream = kind in STREAMS_UNLESS_TOLD if body.stream is None else flag(body.stream, "stream")
    if call.stream and kind in _USAGE_ON_REQUEST:
        options = body.stream_options
        if options is not None and not isinstance(options, dict):
            raise invalid("'stream_options' must be an object.", "stream_options")
        asked = (options or {}).get("include_usage") is True
        call.reports_usage = asked or not call.provider.asks_for_usage or _is_too_old_to_ask(call)
    if body.background is not None and flag(body.background, "background"):
        call.endpoint = call.endpoint.postponed()
    if body.deferred is not None and kind == "chat" and flag(body.deferred, "deferred"):
        call.endpoint = call.endpoint.postponed()
    if kind == "messages" and isinstance(body.thinking, dict) and type(body.thinking.get("budget_tokens")) is int:
        call.least_output = max(LEAST_OUTPUT, body.thinking["budget_tokens"] + 1)


def _is_too_old_to_ask(call: Call) -> bool:
    """Whether the request names a version of the API that refuses to be asked for usage."""
    since = call.provider.usage_since
    version = _API_VERSION.search(call.query) if since else None
    return version is not None and version[1] < since


def _read_model(call: Call, body: Body) -> None:
    """One resolver: the path's model where it has one, and then the body may not name another."""
    named = model_name(body.model if body.model is not None else body.agent)
    if not call.model:
        call.model = named.removeprefix("models/") if call.endpoint.dialect.name == "gemini" else named
    elif call.endpoint.dialect.name == "gemini" and named and named.removeprefix("models/") != call.model:
        raise invalid(f"The path asks for the model {call.model!r}, the body for {named!r}.", "model")


def _read_form(call: Call) -> None:
    """A multipart form: the same fields, as text."""
    parts = call.form = read_form(call.head.content_type, call.body)
    call.model = call.model or model_name(only_value(parts, "model"))
    stream = only_value(parts, "stream")
    if stream is not None and stream.lower() not in ("true", "false", "1", "0", ""):
        raise invalid("'stream' must be true or false.", "stream")
    call.stream = stream is not None and stream.lower() in ("true", "1")
    choices = only_value(parts, "n")
    if choices:
        if not re.fullmatch(r"[1-9][0-9]{0,2}", choices) or int(choices) > MOST_CHOICES:
            raise invalid(f"'n' must be a whole number from 1 to {MOST_CHOICES}.", "n")
        call.choices = int(choices)
