"""Which paths of a provider can generate, which are free, and which cannot be metered: a table with tests.

A path that no row knows is *unknown*: it may generate, hand out a credential or change the account, so only an own key
may take it, metered with an estimate. A path that asks for work done later (batches, fine-tuning, videos) is
*deferred*: what it costs is not in its reply. A path that hands out a credential or opens a WebSocket is *refused*: use
of it would pass us by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from ownkey.gateway.dialects.anthropic import ANTHROPIC
from ownkey.gateway.dialects.bedrock import BEDROCK
from ownkey.gateway.dialects.bedrock_models import INVOKE
from ownkey.gateway.dialects.cohere import COHERE
from ownkey.gateway.dialects.dialect import Dialect
from ownkey.gateway.dialects.gemini import GEMINI
from ownkey.gateway.dialects.ollama import OLLAMA
from ownkey.gateway.dialects.openai import OPENAI
from ownkey.gateway.dialects.table import DIALECTS
from ownkey.providers.provider import Provider


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One kind of call a provider serves.

    ``generates``: can cost tokens; else it is relayed and charged nothing. ``deferred``: its cost cannot be known
    from its reply, so the allowance cannot serve it. ``refused``: never relayed. ``account_wide``: shows or changes
    what is kept in the provider's account, which on a platform key belongs to all organizations together.
    ``streams``: whether the path decides about streaming, and how; None: the body does.
    """

    kind: str
    dialect: Dialect
    generates: bool
    deferred: bool = False
    refused: bool = False
    account_wide: bool = False
    streams: bool | None = None

    def postponed(self) -> Endpoint:
        """The same endpoint for a request that asks to be worked on in the background."""
        return replace(self, kind="deferred", deferred=True)

    @lru_cache(64)  # noqa: B019 – endpoints are the few of this module
    def of_kind(self, kind: str) -> Endpoint:
        """The same endpoint for a request whose body shows what kind it is."""
        return replace(self, kind=kind)


@dataclass(frozen=True, slots=True)
class Row:
    """One line: methods, a pattern below the provider's API root, and what it is.

    In a pattern ``{}`` is one segment (without a colon unless the method is harmless) and ``/**`` anything below,
    or nothing. ``providers`` limits the row to some; ``anywhere`` lets it match below any prefix.
    """

    methods: str
    pattern: str
    endpoint: Endpoint
    providers: frozenset[str] = frozenset()
    anywhere: bool = False

    def expression(self) -> re.Pattern[str]:
        """The row as an expression on ``METHOD /path``."""
        segment = "[^/:]+" if "POST" in self.methods else "[^/]+"
        path = re.escape(self.pattern).replace(r"\{\}", segment)
        path = path.replace(r"/\*\*", "(?:/.*)?")
        prefix = "(?:/.*)?" if self.anywhere else ""
        # Not all providers tell upper from lower case: what generates does so in either, what is free only as it is.
        case = re.IGNORECASE if self.endpoint.generates else 0
        return re.compile(f"(?:{self.methods.replace(' ', '|')}) {prefix}{path}", case)


_READ = "GET HEAD"
_KEEP = "GET HEAD DELETE"
_ANY = "GET HEAD DELETE POST PUT PATCH"


def _generating(kind: str, dialect: Dialect, *, streams: bool | None = None) -> Endpoint:
    return Endpoint(kind, dialect, generates=True, streams=streams)


def _chat() -> Endpoint:
    return Endpoint("chat", OPENAI, generates=True)


def _free(dialect: Dialect) -> Endpoint:
    return Endpoint("free", dialect, generates=False)


def _kept(dialect: Dialect) -> Endpoint:
    return Endpoint("free", dialect, generates=False, account_wide=True)


def _deferred(dialect: Dialect) -> Endpoint:
    return Endpoint("deferred", dialect, generates=True, deferred=True, account_wide=True)


def _administration(dialect: Dialect) -> Endpoint:
    """Costs no tokens, but is not for those who share an account."""
    return Endpoint("free", dialect, generates=False, deferred=True, account_wide=True)


def _refused(dialect: Dialect) -> Endpoint:
    return Endpoint("realtime", dialect, generates=True, refused=True)


def _rows(
    methods: str, patterns: str, endpoint: Endpoint, *, providers: str = "", anywhere: bool = False
) -> Iterator[Row]:
    for pattern in patterns.split():
        yield Row(methods, pattern, endpoint, frozenset(providers.split()), anywhere)


# The first row that matches decides. Rows that make a POST free name their providers: at another one the same path
# may generate.
_OPENAI_ROWS: tuple[Row, ...] = (
    # A WebSocket, or a credential with which a client would reach the provider past us.
    *_rows(_ANY, "/realtime/** /realtimeapi/** /live/** /chatkit/sessions/**", _refused(OPENAI)),
    # Work done later.
    *_rows("POST", "/batches /batch/jobs /fine_tuning/jobs /fine-tunes /finetuning/**", _deferred(OPENAI)),
    *_rows("POST", "/fine_tuning/jobs/{}/resume /fine_tuning/alpha/** /embed-jobs", _deferred(OPENAI)),
    *_rows("POST", "/evals /evals/{} /evals/{}/runs /videos/** /video/** /async/**", _deferred(OPENAI)),
    *_rows("POST", "/threads/runs /threads/{}/runs /threads/{}/runs/{}/submit_tool_outputs", _deferred(OPENAI)),
    *_rows("POST", "/agents/sessions/** /agents/automations/**", _deferred(OPENAI), providers="openai"),
    *_rows("POST", "/services/aigc/video-generation/** /services/aigc/image2video/**", _deferred(OPENAI)),
    *_rows("POST", "/services/aigc/text2image/** /services/aigc/image2image/**", _deferred(OPENAI)),
    # Free, though they look like what follows.
    *_rows("POST", "/moderations /responses/input_tokens", _free(OPENAI), providers="openai azure"),
    *_rows("POST", "/responses/{}/cancel /chat/completions/{}", _kept(OPENAI), providers="openai azure"),
    *_rows("POST", "/fine_tuning/jobs/{}/cancel /fine_tuning/jobs/{}/pause", _kept(OPENAI), providers="openai azure"),
    *_rows("POST", "/evals/{}/runs/{}/cancel", _kept(OPENAI), providers="openai azure"),
    *_rows("POST", "/batches/{}/cancel /batch/jobs/{}/cancel", _kept(OPENAI)),
    *_rows("POST", "/tokenize /detokenize /check-api-key", _free(COHERE), providers="cohere"),
    *_rows("POST", "/show", _free(OLLAMA), providers="ollama"),
    *_rows("POST", "/tokenize-text", _free(OPENAI), providers="xai"),
    *_rows("POST", "/tokenizers/estimate-token-count", _free(OPENAI), providers="moonshot"),
    # Mistral's conversations generate; OpenAI's only keep.
    *_rows("POST", "/conversations /conversations/{}/** /agents/completions", _chat(), providers="mistral"),
    *_rows("POST", "/chat", _generating("cohere_chat", COHERE), providers="cohere"),
    *_rows("POST", "/generate /summarize", _generating("cohere_generate", COHERE), providers="cohere"),
    *_rows("POST", "/embed /rerank /classify", _generating("embeddings", COHERE), providers="cohere"),
    *_rows("POST", "/chat /generate", _generating("ollama", OLLAMA), providers="ollama"),
    *_rows("POST", "/embed /embeddings", _generating("embeddings", OLLAMA), providers="ollama"),
    # The models of an Ollama server are its operator's to change.
    *_rows("POST DELETE", "/pull /push /create /copy /delete", _administration(OLLAMA), providers="ollama"),
    *_rows(_ANY, "/blobs/**", _administration(OLLAMA), providers="ollama"),
    *_rows(_READ, "/tags /ps /version", _free(OLLAMA), providers="ollama"),
    # What generates, below whatever prefix a provider or a version puts before it.
    *_rows("POST", "/chat/completions", _chat(), anywhere=True),
    *_rows("POST", "/completions", _generating("completions", OPENAI), anywhere=True),
    *_rows("POST", "/responses/compact", _generating("compact", OPENAI), anywhere=True),
    *_rows("POST", "/responses", _generating("responses", OPENAI), anywhere=True),
    *_rows("POST", "/embeddings /embed /rerank /classify", _generating("embeddings", OPENAI), anywhere=True),
    *_rows("POST", "/moderations /classifications", _generating("embeddings", OPENAI), anywhere=True),
    *_rows("POST", "/images/generations /images/edits", _generating("images", OPENAI), anywhere=True),
    *_rows("POST", "/images/variations", _generating("images", OPENAI), anywhere=True),
    *_rows("POST", "/audio/speech", _generating("speech", OPENAI), anywhere=True),
    *_rows("POST", "/audio/transcriptions /audio/translations", _generating("transcription", OPENAI), anywhere=True),
    # What a provider knows about itself.
    *_rows(_READ, "/models/** /language-models/** /image-generation-models/** /embedding-models/**", _free(OPENAI)),
    *_rows(_READ, "/providers /endpoints /video-generation-models/** /webhook_event_types", _free(OPENAI)),
    # What is kept in the account: at every provider to look at and to delete, at some to make and change.
    *_rows(_READ, "/api-key /key /keys/** /credits /generation /activity", _kept(OPENAI)),
    *_rows(_READ, "/user/balance /users/me/balance", _kept(OPENAI)),
    *_rows(_KEEP, "/models/{} /responses/{}/** /chat/completions/** /chat/deferred-completion/{}", _kept(OPENAI)),
    *_rows(_KEEP, "/batches/** /batch/jobs/** /fine_tuning/** /fine-tunes/** /finetuning/**", _kept(OPENAI)),
    *_rows(_KEEP, "/evals/** /videos/** /async/** /embed-jobs/** /chatkit/threads/** /safety/**", _kept(OPENAI)),
    *_rows(_KEEP, "/conversations/** /agents/**", _kept(OPENAI)),
    *_rows(_READ, "/deployments/** /operations/** /tasks/** /async-result/**", _kept(OPENAI)),
    *_rows(_ANY, "/files/** /uploads/**", _kept(OPENAI)),
    *_rows(
        _ANY, "/vector_stores/** /containers/** /skills/** /conversations/**", _kept(OPENAI), providers="openai azure"
    ),
    *_rows("POST", "/assistants /assistants/{} /threads /threads/{}", _kept(OPENAI), providers="openai azure"),
    *_rows("POST", "/threads/{}/messages /threads/{}/messages/{}", _kept(OPENAI), providers="openai azure"),
    *_rows("POST", "/threads/{}/runs/{} /threads/{}/runs/{}/cancel", _kept(OPENAI), providers="openai azure"),
    *_rows(_KEEP, "/assistants/** /threads/**", _kept(OPENAI), providers="openai azure"),
    *_rows(_ANY, "/agents/** /vaults/**", _kept(OPENAI), providers="openai azure"),
    *_rows(_ANY, "/audio/voices/** /audio/voice_consents/**", _kept(OPENAI), providers="openai azure"),
    *_rows(_ANY, "/organization/** /projects/** /webhook_endpoints/**", _kept(OPENAI), providers="openai azure"),
    *_rows(_ANY, "/agents /agents/{} /libraries/**", _kept(OPENAI), providers="mistral"),
    *_rows(_ANY, "/datasets/** /connectors/**", _kept(OPENAI), providers="cohere"),
)

_ANTHROPIC_ROWS: tuple[Row, ...] = (
    *_rows("POST", "/messages/batches /sessions /sessions/{}/events /dreams", _deferred(ANTHROPIC)),
    # A deployment may have a schedule, by which agents run on their own.
    *_rows("POST PUT PATCH", "/deployments/**", _deferred(ANTHROPIC)),
    *_rows("POST", "/messages/count_tokens", _free(ANTHROPIC)),
    *_rows("POST", "/messages", _generating("messages", ANTHROPIC)),
    *_rows("POST", "/complete", _generating("complete", ANTHROPIC)),
    *_rows(_READ, "/models/**", _free(ANTHROPIC)),
    *_rows("POST", "/messages/batches/{}/cancel", _kept(ANTHROPIC)),
    *_rows(_KEEP, "/messages/batches/** /sessions/** /dreams/** /deployments/** /deployment_runs/**", _kept(ANTHROPIC)),
    *_rows(_ANY, "/files/** /skills/** /organizations/** /agents/**", _kept(ANTHROPIC)),
    *_rows(_ANY, "/environments/** /memory_stores/** /vaults/**", _kept(ANTHROPIC)),
    *_rows(_ANY, "/user_profiles/** /tunnels/**", _kept(ANTHROPIC)),
)

# Anthropic's format at another provider (Azure, Bedrock, DeepSeek, Moonshot, OpenRouter, xAI, Z.ai).
_ANTHROPIC_ELSEWHERE: tuple[Row, ...] = (
    *_rows("POST", "/v1/messages", _generating("messages", ANTHROPIC), anywhere=True),
    *_rows("POST", "/v1/messages/count_tokens", _free(ANTHROPIC), providers="azure bedrock", anywhere=True),
)

_GEMINI_ROWS: tuple[Row, ...] = (
    # Ephemeral tokens open the live API, which is a WebSocket.
    *_rows(_ANY, "/auth_tokens/** /authTokens/**", _refused(GEMINI)),
    *_rows(_READ, "/models/** /tunedModels/** /operations/**", _free(GEMINI)),
    *_rows("POST", "/interactions", _generating("interactions", GEMINI)),
    # What is in a cache is charged by the hour, for as long as it is asked to be there.
    *_rows("POST PATCH", "/tunedModels /cachedContents /cachedContents/{}", _deferred(GEMINI)),
    *_rows(_ANY, "/files/** /corpora/**", _kept(GEMINI)),
    *_rows("POST", "/fileSearchStores", _kept(GEMINI)),
    *_rows("POST", "/interactions/{}/cancel", _kept(GEMINI)),
    *_rows(_KEEP, "/interactions/** /batches/** /fileSearchStores/** /cachedContents/**", _kept(GEMINI)),
    *_rows("DELETE PATCH", "/tunedModels/** /operations/**", _kept(GEMINI)),
)

# Gemini's methods on a resource: ``models/gemini-2.5-flash:generateContent``.
_GEMINI_VERBS: dict[str, Endpoint] = {
    "generateContent": _generating("generate", GEMINI, streams=False),
    "streamGenerateContent": _generating("generate", GEMINI, streams=True),
    "generateAnswer": _generating("generate", GEMINI, streams=False),
    "embedContent": _generating("embeddings", GEMINI, streams=False),
    "batchEmbedContents": _generating("embeddings", GEMINI, streams=False),
    "predict": _generating("predict", GEMINI, streams=False),
    "countTokens": _free(GEMINI),
    "computeTokens": _free(GEMINI),
    "cancel": _kept(GEMINI),
    "register": _kept(GEMINI),
    "batchGenerateContent": _deferred(GEMINI),
    "asyncBatchEmbedContent": _deferred(GEMINI),
    "predictLongRunning": _deferred(GEMINI),
    "importFile": _deferred(GEMINI),
    "uploadToFileSearchStore": _deferred(GEMINI),
}
_GEMINI_CALL = re.compile(r"POST (?:/[^:]*)?/[^/:]+:([A-Za-z]+)")

# Vertex AI: Gemini's methods below a project, and other makers' models, whose own format passes through.
_VERTEX_ROWS: tuple[Row, ...] = (
    *_rows(_READ, "/publishers/** /projects/{}/locations/{}/publishers/**", _free(GEMINI)),
    *_rows("POST", "/projects/{}/locations/{}/batchPredictionJobs", _deferred(GEMINI)),
    *_rows("POST", "/projects/{}/locations/{}/tuningJobs /projects/{}/locations/{}/customJobs", _deferred(GEMINI)),
    *_rows("POST PATCH", "/projects/{}/locations/{}/cachedContents/**", _deferred(GEMINI)),
    *_rows(_KEEP, "/projects/{}/locations/**", _kept(GEMINI)),
)
_VERTEX_CALL = re.compile(r"/(?:publishers/([^/:]+)/models|endpoints)/([^/:]+):([A-Za-z]+)$")
_VERTEX_EMBEDS = re.compile(r"(?:text-?|multimodal-?|gemini-)embedding")
_VERTEX_RAW = {"anthropic": _generating("messages", ANTHROPIC)}
_VERTEX_VERBS = {**_GEMINI_VERBS, "fetchPredictOperation": _kept(GEMINI)}

# Amazon Bedrock's operations on a model, whose id may have slashes and colons in it.
_BEDROCK_VERBS: dict[str, Endpoint] = {
    "converse": _generating("converse", BEDROCK, streams=False),
    "converse-stream": _generating("converse", BEDROCK, streams=True),
    "invoke": _generating(INVOKE, BEDROCK, streams=False),
    "invoke-with-response-stream": _generating(INVOKE, BEDROCK, streams=True),
    "invoke-with-bidirectional-stream": _refused(BEDROCK),
    "count-tokens": _free(BEDROCK),
}
_BEDROCK_CALL = re.compile(r"POST /model/.+/([a-z-]+)")
_BEDROCK_ROWS: tuple[Row, ...] = (
    # Guardrails are charged by what they read, in units of text.
    *_rows("POST", "/guardrail/{}/version/{}/apply", _generating("embeddings", BEDROCK, streams=False)),
    *_rows("POST", "/async-invoke", _deferred(BEDROCK)),
    *_rows(_READ, "/async-invoke/**", _kept(BEDROCK)),
)

# Where a path names the model.
_GEMINI_MODEL = re.compile(r"/models/([^/]+):[A-Za-z]+$|/(tunedModels/[^/]+):[A-Za-z]+$|/endpoints/([^/]+):[A-Za-z]+$")
_BEDROCK_MODEL = re.compile(r"^/model/(.+)/[a-z-]+$")
_DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/")

# Google serves OpenAI's format below these.
_OPENAI_AT_GEMINI = ("/v1beta/openai", "/v1/openai", "/v1alpha/openai")
_GEMINI_UPLOAD = re.compile(r"POST /upload/v1(?:beta|alpha)?/files")

_Compiled = tuple[tuple[re.Pattern[str], Row], ...]


def _compiled(rows: tuple[Row, ...]) -> _Compiled:
    return tuple((row.expression(), row) for row in rows)


TABLE: dict[str, _Compiled] = {
    "openai": _compiled(_OPENAI_ROWS),
    "anthropic": _compiled(_ANTHROPIC_ROWS),
    "gemini": _compiled(_GEMINI_ROWS),
    "vertex": _compiled(_VERTEX_ROWS),
    "bedrock": _compiled(_BEDROCK_ROWS),
    "anthropic elsewhere": _compiled(_ANTHROPIC_ELSEWHERE),
}


def _first(table: str, provider: Provider, method: str, path: str, *, anywhere: bool = False) -> Endpoint | None:
    line = f"{method} {path}"
    for expression, row in TABLE[table]:
        if anywhere and not row.anywhere:
            continue
        if (not row.providers or provider.slug in row.providers) and expression.fullmatch(line):
            return row.endpoint
    return None


def _below_roots(provider: Provider, roots: tuple[str, ...], table: str, method: str, path: str) -> Endpoint | None:
    for root in sorted(roots, key=len, reverse=True):
        if path.startswith(root + "/") and (found := _first(table, provider, method, path[len(root) :])) is not None:
            return found
    return None


def _gemini(provider: Provider, method: str, path: str) -> Endpoint | None:
    found = _below_roots(provider, _OPENAI_AT_GEMINI, "openai", method, path)
    if found is not None:
        return found
    if path.startswith("/ws/"):
        return _refused(GEMINI)
    if _GEMINI_UPLOAD.fullmatch(f"{method} {path}"):
        return _kept(GEMINI)
    call = _GEMINI_CALL.fullmatch(f"{method} {path}")
    if call is not None:
        return _GEMINI_VERBS.get(call[1])
    return _below_roots(provider, provider.api_roots, "gemini", method, path)


def _vertex(provider: Provider, method: str, path: str) -> Endpoint | None:
    if path.startswith("/ws/"):
        return _refused(GEMINI)
    call = _VERTEX_CALL.search(path) if method == "POST" else None
    if call is None:
        return _below_roots(provider, provider.api_roots, "vertex", method, path)
    publisher, model, verb = call.groups()
    if verb in ("rawPredict", "streamRawPredict"):
        if model == "count-tokens":
            return _free(ANTHROPIC)
        return _VERTEX_RAW.get(publisher, _generating("raw_chat", OPENAI))
    if verb == "predict" and _VERTEX_EMBEDS.match(model):
        return _GEMINI_VERBS["embedContent"]
    return _VERTEX_VERBS.get(verb)


def _bedrock(provider: Provider, method: str, path: str) -> Endpoint | None:
    call = _BEDROCK_CALL.fullmatch(f"{method} {path}")
    if call is not None:
        return _BEDROCK_VERBS.get(call[1])
    found = _below_roots(provider, provider.api_roots[:1], "bedrock", method, path)
    return found or _below_roots(provider, provider.api_roots[1:], "openai", method, path)


def _usual(provider: Provider, method: str, path: str) -> Endpoint | None:
    return _below_roots(provider, provider.api_roots, provider.dialect, method, path)


_FINDERS = {"gemini": _gemini, "vertex": _vertex, "bedrock": _bedrock}


def find_endpoint(provider: Provider, method: str, path: str) -> Endpoint:
    """What a path of a provider is; the path is the provider's own, without query, with no escapes left in it."""
    found = _FINDERS.get(provider.slug, _usual)(provider, method, path)
    if found is None or not found.generates:
        if provider.dialect != "gemini":
            found = _first("anthropic elsewhere", provider, method, path, anywhere=True) or found
        if found is None:
            found = _first("openai", provider, method, path, anywhere=True)
    return found or Endpoint("unknown", DIALECTS[provider.dialect], generates=True)


def model_in_path(provider: Provider, path: str) -> str:
    """The model that a path names, empty if it names none; the path has no escapes left in it."""
    pattern = {"gemini": _GEMINI_MODEL, "bedrock": _BEDROCK_MODEL}.get(provider.dialect, _DEPLOYMENT)
    found = pattern.search(path)
    return next(name for name in found.groups() if name) if found else ""
