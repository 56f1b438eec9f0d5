"""Which paths can generate, which are free, which cannot be metered: the table, row by row."""

from __future__ import annotations

import pytest

from ownkey.gateway.endpoints import TABLE, find_endpoint
from ownkey.providers.registry import PROVIDERS, find

PROJECT = "/v1/projects/p1/locations/us-central1"
GENERATING = [
    ("openai", "/v1/chat/completions", "chat", "openai"),
    ("openai", "/v1/completions", "completions", "openai"),
    ("openai", "/v1/engines/davinci/completions", "completions", "openai"),
    ("openai", "/v1/responses", "responses", "openai"),
    ("openai", "/v1/responses/compact", "compact", "openai"),
    ("openai", "/v1/embeddings", "embeddings", "openai"),
    ("openai", "/v1/images/generations", "images", "openai"),
    ("openai", "/v1/images/edits", "images", "openai"),
    ("openai", "/v1/images/variations", "images", "openai"),
    ("openai", "/v1/audio/speech", "speech", "openai"),
    ("openai", "/v1/audio/transcriptions", "transcription", "openai"),
    ("openai", "/v1/audio/translations", "transcription", "openai"),
    ("openai", "/openai/deployments/mine/chat/completions", "chat", "openai"),
    ("anthropic", "/v1/messages", "messages", "anthropic"),
    ("anthropic", "/v1/complete", "complete", "anthropic"),
    ("anthropic", "/v1/chat/completions", "chat", "openai"),
    ("gemini", "/v1beta/models/gemini-2.5-flash:generateContent", "generate", "gemini"),
    ("gemini", "/v1/models/gemini-2.5-flash:generateContent", "generate", "gemini"),
    ("gemini", "/v1alpha/models/gemini-2.5-flash:streamGenerateContent", "generate", "gemini"),
    ("gemini", "/v1beta/tunedModels/mine:generateContent", "generate", "gemini"),
    ("gemini", "/v1beta/models/gemini-embedding-001:embedContent", "embeddings", "gemini"),
    ("gemini", "/v1beta/models/gemini-embedding-001:batchEmbedContents", "embeddings", "gemini"),
    ("gemini", "/v1beta/models/imagen-4:predict", "predict", "gemini"),
    ("gemini", "/v1beta/interactions", "interactions", "gemini"),
    ("gemini", "/v1beta/openai/chat/completions", "chat", "openai"),
    ("gemini", "/v1beta/openai/embeddings", "embeddings", "openai"),
    (
        "gemini",
        "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:generateContent",
        "generate",
        "gemini",
    ),
    ("groq", "/openai/v1/chat/completions", "chat", "openai"),
    ("openrouter", "/api/v1/chat/completions", "chat", "openai"),
    ("openrouter", "/api/v1/messages", "messages", "anthropic"),
    ("deepseek", "/chat/completions", "chat", "openai"),
    ("deepseek", "/beta/completions", "completions", "openai"),
    ("deepseek", "/anthropic/v1/messages", "messages", "anthropic"),
    ("moonshot", "/anthropic/v1/messages", "messages", "anthropic"),
    ("mistral", "/v1/fim/completions", "completions", "openai"),
    ("mistral", "/v1/agents/completions", "chat", "openai"),
    ("mistral", "/v1/conversations", "chat", "openai"),
    ("mistral", "/v1/conversations/c1/restart", "chat", "openai"),
    ("mistral", "/v1/moderations", "embeddings", "openai"),
    ("cohere", "/v2/chat", "cohere_chat", "cohere"),
    ("cohere", "/v1/chat", "cohere_chat", "cohere"),
    ("cohere", "/v1/generate", "cohere_generate", "cohere"),
    ("cohere", "/v2/embed", "embeddings", "cohere"),
    ("cohere", "/v2/rerank", "embeddings", "cohere"),
    ("cohere", "/compatibility/v1/chat/completions", "chat", "openai"),
    ("fireworks", "/inference/v1/chat/completions", "chat", "openai"),
    ("perplexity", "/chat/completions", "chat", "openai"),
    ("azure", "/openai/deployments/mine/chat/completions", "chat", "openai"),
    ("azure", "/openai/deployments/mine/embeddings", "embeddings", "openai"),
    ("azure", "/openai/deployments/mine/images/generations", "images", "openai"),
    ("azure", "/openai/deployments/mine/audio/transcriptions", "transcription", "openai"),
    ("azure", "/openai/v1/chat/completions", "chat", "openai"),
    ("azure", "/openai/v1/responses", "responses", "openai"),
    ("azure", "/openai/responses", "responses", "openai"),
    ("azure", "/models/chat/completions", "chat", "openai"),
    ("azure", "/anthropic/v1/messages", "messages", "anthropic"),
    ("bedrock", "/model/amazon.nova-lite-v1:0/converse", "converse", "bedrock"),
    ("bedrock", "/model/amazon.nova-lite-v1:0/converse-stream", "converse", "bedrock"),
    ("bedrock", "/model/amazon.nova-lite-v1:0/invoke", "invoke", "bedrock"),
    ("bedrock", "/model/amazon.nova-lite-v1:0/invoke-with-response-stream", "invoke", "bedrock"),
    ("bedrock", "/model/arn:aws:bedrock:us-east-1::foundation-model/meta.llama3/invoke", "invoke", "bedrock"),
    ("bedrock", "/guardrail/g1/version/1/apply", "embeddings", "bedrock"),
    ("bedrock", "/openai/v1/chat/completions", "chat", "openai"),
    ("bedrock", "/openai/v1/responses", "responses", "openai"),
    ("bedrock", "/v1/responses", "responses", "openai"),
    ("bedrock", "/anthropic/v1/messages", "messages", "anthropic"),
    ("vertex", f"{PROJECT}/publishers/google/models/gemini-2.5-pro:generateContent", "generate", "gemini"),
    ("vertex", f"{PROJECT}/publishers/google/models/gemini-2.5-pro:streamGenerateContent", "generate", "gemini"),
    ("vertex", "/v1/publishers/google/models/gemini-2.5-pro:generateContent", "generate", "gemini"),
    ("vertex", f"{PROJECT}/publishers/google/models/text-embedding-005:predict", "embeddings", "gemini"),
    ("vertex", f"{PROJECT}/publishers/google/models/imagen-4.0:predict", "predict", "gemini"),
    ("vertex", f"{PROJECT}/publishers/anthropic/models/claude-sonnet-4@20250514:rawPredict", "messages", "anthropic"),
    ("vertex", f"{PROJECT}/publishers/anthropic/models/claude-opus-4:streamRawPredict", "messages", "anthropic"),
    ("vertex", f"{PROJECT}/publishers/mistralai/models/mistral-medium:rawPredict", "raw_chat", "openai"),
    ("vertex", f"{PROJECT}/endpoints/openapi/chat/completions", "chat", "openai"),
    ("vertex", f"{PROJECT}/endpoints/1234:generateContent", "generate", "gemini"),
    ("huggingface", "/v1/chat/completions", "chat", "openai"),
    ("huggingface", "/together/v1/chat/completions", "chat", "openai"),
    ("qwen", "/compatible-mode/v1/chat/completions", "chat", "openai"),
    ("qwen", "/compatible-mode/v1/embeddings", "embeddings", "openai"),
    ("zai", "/api/paas/v4/chat/completions", "chat", "openai"),
    ("zai", "/api/anthropic/v1/messages", "messages", "anthropic"),
    ("ollama", "/v1/chat/completions", "chat", "openai"),
    ("ollama", "/api/chat", "ollama", "ollama"),
    ("ollama", "/api/generate", "ollama", "ollama"),
    ("ollama", "/api/embed", "embeddings", "ollama"),
]

FREE = [
    ("openai", "GET", "/v1/models"),
    ("openai", "GET", "/v1/models/gpt-4o"),
    ("openai", "GET", "/v1/models/ft:gpt-4o:acme::x"),
    ("openai", "POST", "/v1/moderations"),
    ("openai", "POST", "/v1/responses/input_tokens"),
    ("anthropic", "GET", "/v1/models"),
    ("anthropic", "GET", "/v1/models/claude-sonnet-4-6"),
    ("anthropic", "POST", "/v1/messages/count_tokens"),
    ("gemini", "GET", "/v1beta/models"),
    ("gemini", "GET", "/v1beta/models/gemini-2.5-flash"),
    ("gemini", "POST", "/v1beta/models/gemini-2.5-flash:countTokens"),
    ("gemini", "GET", "/v1beta/openai/models"),
    ("groq", "GET", "/openai/v1/models"),
    ("openrouter", "GET", "/api/v1/models/meta-llama/llama-3/endpoints"),
    ("cohere", "POST", "/v1/tokenize"),
    ("moonshot", "POST", "/v1/tokenizers/estimate-token-count"),
    ("azure", "GET", "/openai/models"),
    ("azure", "POST", "/anthropic/v1/messages/count_tokens"),
    ("bedrock", "POST", "/model/anthropic.claude-sonnet-4-20250514-v1:0/count-tokens"),
    ("bedrock", "GET", "/openai/v1/models"),
    ("vertex", "POST", f"{PROJECT}/publishers/google/models/gemini-2.5-pro:countTokens"),
    ("vertex", "POST", f"{PROJECT}/publishers/anthropic/models/count-tokens:rawPredict"),
    ("vertex", "GET", "/v1beta1/publishers/google/models"),
    ("ollama", "GET", "/api/tags"),
    ("ollama", "POST", "/api/show"),
]

KEPT_IN_THE_ACCOUNT = [
    ("openai", "GET", "/v1/files"),
    ("openai", "POST", "/v1/files"),
    ("openai", "GET", "/v1/files/file-1/content"),
    ("openai", "DELETE", "/v1/files/file-1"),
    ("openai", "POST", "/v1/uploads/u1/parts"),
    ("openai", "POST", "/v1/vector_stores/vs1/search"),
    ("openai", "GET", "/v1/responses/resp_1"),
    ("openai", "DELETE", "/v1/responses/resp_1"),
    ("openai", "POST", "/v1/responses/resp_1/cancel"),
    ("openai", "GET", "/v1/chat/completions"),
    ("openai", "POST", "/v1/conversations"),
    ("openai", "POST", "/v1/threads/t1/messages"),
    ("openai", "GET", "/v1/batches"),
    ("openai", "POST", "/v1/batches/b1/cancel"),
    ("openai", "DELETE", "/v1/models/ft:gpt-4o:acme::x"),
    ("openai", "GET", "/v1/organization/costs"),
    ("anthropic", "POST", "/v1/files"),
    ("anthropic", "GET", "/v1/messages/batches/b1/results"),
    ("anthropic", "GET", "/v1/organizations/api_keys"),
    ("gemini", "GET", "/v1beta/files"),
    ("gemini", "POST", "/upload/v1beta/files"),
    ("gemini", "GET", "/v1beta/cachedContents"),
    ("anthropic", "GET", "/v1/deployments/d1"),
    ("gemini", "GET", "/v1beta/interactions/i1"),
    ("gemini", "POST", "/v1beta/batches/b1:cancel"),
    ("openrouter", "GET", "/api/v1/key"),
    ("openrouter", "GET", "/api/v1/credits"),
    ("deepseek", "GET", "/user/balance"),
    ("mistral", "POST", "/v1/files"),
    ("azure", "POST", "/openai/files"),
    ("azure", "GET", "/openai/deployments"),
    ("azure", "POST", "/openai/v1/vector_stores"),
    ("bedrock", "GET", "/async-invoke"),
    ("vertex", "GET", f"{PROJECT}/cachedContents"),
    ("vertex", "POST", f"{PROJECT}/publishers/google/models/veo-3:fetchPredictOperation"),
    ("vertex", "GET", f"{PROJECT}/batchPredictionJobs/j1"),
    ("qwen", "GET", "/api/v1/tasks/t1"),
    ("ollama", "POST", "/api/pull"),
    ("ollama", "DELETE", "/api/delete"),
    ("ollama", "POST", "/api/blobs/sha256:0"),
]

DEFERRED = [
    ("openai", "/v1/batches"),
    ("openai", "/v1/fine_tuning/jobs"),
    ("openai", "/v1/fine_tuning/jobs/j1/resume"),
    ("openai", "/v1/evals/e1/runs"),
    ("openai", "/v1/videos"),
    ("openai", "/v1/videos/v1/remix"),
    ("openai", "/v1/threads/runs"),
    ("openai", "/v1/threads/t1/Runs"),
    ("anthropic", "/v1/deployments"),
    ("anthropic", "/v1/deployments/d1/pause"),
    ("gemini", "/v1beta/cachedContents"),
    ("vertex", f"{PROJECT}/cachedContents"),
    ("openai", "/v1/threads/t1/runs"),
    ("openai", "/v1/agents/sessions/s1/events"),
    ("anthropic", "/v1/messages/batches"),
    ("anthropic", "/v1/sessions"),
    ("gemini", "/v1beta/models/gemini-2.5-flash:batchGenerateContent"),
    ("gemini", "/v1beta/models/gemini-embedding-001:asyncBatchEmbedContent"),
    ("gemini", "/v1beta/models/veo-3:predictLongRunning"),
    ("gemini", "/v1beta/fileSearchStores/f1:importFile"),
    ("gemini", "/v1beta/tunedModels"),
    ("mistral", "/v1/batch/jobs"),
    ("cohere", "/v1/embed-jobs"),
    ("perplexity", "/async/chat/completions"),
    ("zai", "/api/paas/v4/async/chat/completions"),
    ("zai", "/api/paas/v4/videos/generations"),
    ("qwen", "/api/v1/services/aigc/video-generation/video-synthesis"),
    ("azure", "/openai/batches"),
    ("azure", "/openai/v1/fine_tuning/jobs"),
    ("bedrock", "/async-invoke"),
    ("vertex", f"{PROJECT}/batchPredictionJobs"),
    ("vertex", f"{PROJECT}/publishers/google/models/veo-3:predictLongRunning"),
]

REFUSED = [
    ("openai", "GET", "/v1/realtime"),
    ("openai", "POST", "/v1/realtime/client_secrets"),
    ("openai", "POST", "/v1/realtime/calls"),
    ("openai", "POST", "/v1/live/sessions"),
    ("openai", "POST", "/v1/chatkit/sessions"),
    ("xai", "POST", "/v1/realtime/client_secrets"),
    ("gemini", "GET", "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"),
    ("gemini", "POST", "/v1alpha/auth_tokens"),
    ("azure", "GET", "/openai/v1/realtime"),
    ("azure", "POST", "/openai/realtimeapi/sessions"),
    ("bedrock", "POST", "/model/amazon.nova-sonic-v1:0/invoke-with-bidirectional-stream"),
    ("vertex", "GET", "/ws/google.cloud.aiplatform.v1.LlmBidiService/BidiGenerateContent"),
]

UNKNOWN = [
    ("openai", "POST", "/v1/something/new"),
    ("openai", "GET", "/v1/something/new"),
    ("openai", "POST", "/v1/chat/completions/"),
    ("openai", "POST", "/v1/Chat/Completions/x"),
    ("openai", "POST", "/v1/models"),
    ("openai", "POST", "/models"),
    ("openai", "GET", "/"),
    ("anthropic", "POST", "/v1/messages/other"),
    ("anthropic", "POST", "/messages"),
    ("gemini", "POST", "/v1beta/models/gemini-2.5-flash:inventPoetry"),
    ("gemini", "POST", "/v1beta/models/gemini-2.5-flash"),
    ("gemini", "POST", "/v1beta/files/a:generateNovel"),
    ("groq", "POST", "/openai/v1/conversations"),
    ("groq", "POST", "/openai/v1/tokenize"),
    ("mistral", "POST", "/v1/ocr"),
    ("openai", "POST", "/v1/threads/t1/something"),
    ("openrouter", "POST", "/api/v1/auth/keys"),
    ("fireworks", "POST", "/v1/accounts/acme/users/me/apiKeys"),
    ("qwen", "POST", "/api/v1/tokens"),
    ("bedrock", "POST", "/model/m/dream"),
    ("bedrock", "POST", "/agents/a/sessions/s/text"),
    ("vertex", "POST", f"{PROJECT}/reasoningEngines/r1:query"),
    ("vertex", "POST", f"{PROJECT}/publishers/google/models/gemini:invent"),
    ("ollama", "POST", "/api/new"),
]


@pytest.mark.parametrize(("slug", "path", "kind", "dialect"), GENERATING)
def test_what_generates_is_metered_in_its_format(slug: str, path: str, kind: str, dialect: str) -> None:
    """A path that can generate is metered, and read in the format it speaks, whoever serves it."""
    endpoint = find_endpoint(find(slug), "POST", path)
    assert (endpoint.kind, endpoint.dialect.name, endpoint.generates) == (kind, dialect, True)
    assert [endpoint.deferred, endpoint.refused, endpoint.account_wide] == [False] * 3


@pytest.mark.parametrize(("slug", "method", "path"), FREE)
def test_what_cannot_generate_is_free(slug: str, method: str, path: str) -> None:
    """Models and token counts are relayed and charged nothing."""
    endpoint = find_endpoint(find(slug), method, path)
    assert [endpoint.generates, endpoint.deferred, endpoint.refused, endpoint.account_wide] == [False] * 4


@pytest.mark.parametrize(("slug", "method", "path"), KEPT_IN_THE_ACCOUNT)
def test_what_is_kept_in_the_account_is_free_and_said_to_be(slug: str, method: str, path: str) -> None:
    """Files, stored answers and the account itself cost no tokens, but belong to whoever's key it is."""
    endpoint = find_endpoint(find(slug), method, path)
    assert not endpoint.generates
    assert endpoint.account_wide


@pytest.mark.parametrize(("slug", "path"), DEFERRED)
def test_work_done_later_is_deferred(slug: str, path: str) -> None:
    """What costs later than it is asked for cannot be metered from its reply."""
    endpoint = find_endpoint(find(slug), "POST", path)
    assert endpoint.deferred
    assert endpoint.generates


@pytest.mark.parametrize(("slug", "method", "path"), REFUSED)
def test_what_would_pass_us_by_is_refused(slug: str, method: str, path: str) -> None:
    """Realtime connections, and credentials with which a client could open one itself, are not relayed."""
    assert find_endpoint(find(slug), method, path).refused


@pytest.mark.parametrize(("slug", "method", "path"), UNKNOWN)
def test_an_unknown_path_counts_as_generating(slug: str, method: str, path: str) -> None:
    """A path that no row knows is never free by accident."""
    endpoint = find_endpoint(find(slug), method, path)
    assert [endpoint.generates, endpoint.deferred, endpoint.refused] == [True, False, False]


MODELS = {"bedrock": "/v1/models", "vertex": "/v1beta1/publishers/google/models"}


@pytest.mark.parametrize("slug", sorted(PROVIDERS))
def test_every_provider_has_its_models_and_its_chat(slug: str) -> None:
    """The two paths every program uses are known below each provider's own root."""
    provider = find(slug)
    root = provider.api_roots[0]
    models = find_endpoint(provider, "GET", MODELS.get(slug, f"{root}/models"))
    assert not models.generates
    if provider.dialect == "openai":
        assert find_endpoint(provider, "POST", f"{root}/chat/completions").kind == "chat"


def test_rows_name_known_providers() -> None:
    """A row limited to some providers names ones that exist, so a typing error cannot disable it."""
    assert {name for rows in TABLE.values() for _, row in rows for name in row.providers} <= set(PROVIDERS)


@pytest.mark.parametrize("path", ["/v1/files/x/chat/completions", "/v1/threads/a/responses", "/v1/files/v1/messages"])
def test_a_free_shelf_cannot_hide_what_generates(path: str) -> None:
    """A generating path below a prefix that is otherwise free still generates."""
    assert find_endpoint(find("openai"), "POST", path).generates
