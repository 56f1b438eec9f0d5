"""What a provider's refusal means for the key."""

from __future__ import annotations

import json
import time

import pytest

from ownkey.providers.failures import BY_STATUS, TABLE, Failure, classify, message_of
from ownkey.providers.registry import PROVIDERS, find


def openai_error(message: str, kind: str | None = None, code: str | None = None) -> dict[str, object]:
    """An error as OpenAI and its likes write it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def anthropic_error(kind: str, message: str, **details: str) -> dict[str, object]:
    """An error as Anthropic writes it."""
    return {"type": "error", "error": {"type": kind, "message": message, "details": details}, "request_id": "req_1"}


def google_error(code: int, status: str, message: str, reason: str = "") -> dict[str, object]:
    """An error as Google writes it."""
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}] if reason else []
    return {"error": {"code": code, "message": message, "status": status, "details": details}}


# What OpenAI answers, with 401, to a restricted key.
MISSING_SCOPES = openai_error(
    "You have insufficient permissions for this operation. Missing scopes: api.model.read. Check that you have the "
    "correct role in your organization (Reader, Writer, Owner) and project (Member, Owner), and if you're using a "
    "restricted API key, that it has the necessary scopes.",
    "invalid_request_error",
)

CASES = [
    ("openai", 401, MISSING_SCOPES, "LIMITED"),
    (
        "openai",
        401,
        openai_error("Incorrect API key provided", "invalid_request_error", "invalid_api_key"),
        "KEY_REJECTED",
    ),
    ("openai", 401, openai_error("No such organization", None, "mismatched_organization"), "BAD_REQUEST"),
    ("openai", 429, openai_error("You exceeded your quota", "insufficient_quota", "insufficient_quota"), "NO_MONEY"),
    ("openai", 429, openai_error("No credit", "billing", "credit_balance_exhausted"), "NO_MONEY"),
    ("openai", 429, openai_error("Slower please", "requests", "rate_limit_exceeded"), "PRESSURE"),
    ("openai", 503, openai_error("Too many", "server_error", "server_is_overloaded"), "PRESSURE"),
    ("openai", 500, openai_error("Sorry", "server_error"), "OUTAGE"),
    ("openai", 403, openai_error("Missing scopes: model.request", "invalid_request_error"), "LIMITED"),
    ("openai", 400, openai_error("Unknown parameter", "invalid_request_error", "unknown_parameter"), "BAD_REQUEST"),
    ("openai", 404, openai_error("No such model", "invalid_request_error", "model_not_found"), "BAD_REQUEST"),
    ("anthropic", 401, anthropic_error("authentication_error", "invalid x-api-key"), "KEY_REJECTED"),
    (
        "anthropic",
        400,
        anthropic_error("invalid_request_error", "Your credit balance is too low to go on."),
        "NO_MONEY",
    ),
    (
        "anthropic",
        400,
        anthropic_error("invalid_request_error", "You have reached your specified API usage limits."),
        "NO_MONEY",
    ),
    ("anthropic", 402, anthropic_error("billing_error", "Pay first."), "NO_MONEY"),
    (
        "anthropic",
        429,
        anthropic_error("rate_limit_error", "Limit.", error_code="enforced_spend_limit_reached"),
        "NO_MONEY",
    ),
    ("anthropic", 429, anthropic_error("rate_limit_error", "Tokens per minute."), "PRESSURE"),
    ("anthropic", 529, anthropic_error("overloaded_error", "Overloaded"), "PRESSURE"),
    ("anthropic", 504, anthropic_error("timeout_error", "Timed out"), "OUTAGE"),
    ("anthropic", 400, anthropic_error("invalid_request_error", "max_tokens: field required"), "BAD_REQUEST"),
    ("anthropic", 403, anthropic_error("permission_error", "Not yours"), "LIMITED"),
    ("gemini", 400, google_error(400, "INVALID_ARGUMENT", "Bad key.", "API_KEY_INVALID"), "KEY_REJECTED"),
    ("gemini", 400, google_error(400, "INVALID_ARGUMENT", "API key expired. Renew it."), "KEY_REJECTED"),
    ("gemini", 400, google_error(400, "INVALID_ARGUMENT", "Temperature is too high."), "BAD_REQUEST"),
    ("gemini", 400, google_error(400, "FAILED_PRECONDITION", "User location is not supported."), "LIMITED"),
    (
        "gemini",
        401,
        google_error(401, "UNAUTHENTICATED", "Wrong type.", "ACCESS_TOKEN_TYPE_UNSUPPORTED"),
        "KEY_REJECTED",
    ),
    ("gemini", 403, google_error(403, "PERMISSION_DENIED", "This key was reported as leaked."), "KEY_REJECTED"),
    ("gemini", 403, google_error(403, "PERMISSION_DENIED", "Blocked.", "API_KEY_SERVICE_BLOCKED"), "LIMITED"),
    ("gemini", 429, google_error(429, "RESOURCE_EXHAUSTED", "Quota: requests per minute."), "PRESSURE"),
    ("gemini", 429, google_error(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."), "NO_MONEY"),
    ("gemini", 503, google_error(503, "UNAVAILABLE", "The model is overloaded."), "PRESSURE"),
    ("deepseek", 402, openai_error("Insufficient Balance"), "NO_MONEY"),
    ("deepseek", 401, openai_error("Authentication Fails"), "KEY_REJECTED"),
    ("openrouter", 402, {"error": {"code": 402, "message": "Add credits", "metadata": {}}}, "NO_MONEY"),
    (
        "openrouter",
        402,
        {"error": {"code": 402, "message": "In use", "metadata": {"reason": "in_flight_budget_exhausted"}}},
        "PRESSURE",
    ),
    ("openrouter", 403, {"error": {"code": 403, "message": "Key limit exceeded (total limit)"}}, "NO_MONEY"),
    ("openrouter", 403, {"error": {"code": 403, "message": "Your input was flagged"}}, "BAD_REQUEST"),
    ("xai", 400, {"code": "Client error", "error": "Incorrect API key provided: xa***zz."}, "KEY_REJECTED"),
    ("xai", 400, {"code": "Client error", "error": "Unknown field: foo"}, "BAD_REQUEST"),
    ("xai", 403, {"code": "denied", "error": "Your newly created team doesn't have any credits yet."}, "NO_MONEY"),
    ("together", 403, openai_error("Input validation error: too long"), "BAD_REQUEST"),
    ("together", 401, openai_error("Invalid API key"), "KEY_REJECTED"),
    ("nvidia", 403, {"status": 403, "title": "Forbidden", "detail": "Authorization failed"}, "KEY_REJECTED"),
    ("fireworks", 412, openai_error("Account suspended: monthly spending limit reached"), "NO_MONEY"),
    ("groq", 400, openai_error("Spend limit", None, "blocked_api_access"), "NO_MONEY"),
    ("moonshot", 429, openai_error("Add balance", "exceeded_current_quota_error"), "NO_MONEY"),
    ("perplexity", 401, openai_error("You exceeded your quota", "insufficient_quota"), "NO_MONEY"),
    ("mistral", 401, {"message": "Unauthorized", "request_id": "1"}, "KEY_REJECTED"),
    ("mistral", 422, {"object": "error", "message": {"detail": []}, "type": "invalid_request_error"}, "BAD_REQUEST"),
    ("cohere", 402, {"message": "Please add a payment method"}, "NO_MONEY"),
    ("cohere", 429, {"message": "Slow down"}, "PRESSURE"),
    ("cohere", 429, {"message": "A Trial key is limited to 1000 API calls / month."}, "NO_MONEY"),
    ("cohere", 401, {"message": "invalid api token"}, "KEY_REJECTED"),
    ("cohere", 422, {"message": "max_tokens must be positive"}, "BAD_REQUEST"),
    ("cohere", 503, {"message": "Try later"}, "OUTAGE"),
    ("azure", 401, {"error": {"code": "401", "message": "Access denied: bad subscription key."}}, "KEY_REJECTED"),
    ("azure", 401, {"error": {"code": "PermissionDenied", "message": "It lacks the required action."}}, "LIMITED"),
    ("azure", 403, {"error": {"code": "403", "message": "Denied by Virtual Network/Firewall rules."}}, "LIMITED"),
    ("azure", 403, {"error": {"code": "403", "message": "Out of call volume quota for the F0 tier."}}, "PRESSURE"),
    ("azure", 429, {"error": {"code": "429", "message": "Requests exceeded the token rate limit."}}, "PRESSURE"),
    ("azure", 403, {"error": {"code": "x", "message": "The subscription is disabled."}}, "NO_MONEY"),
    ("azure", 404, {"error": {"code": "DeploymentNotFound", "message": "No such deployment."}}, "BAD_REQUEST"),
    ("azure", 400, {"error": {"code": "content_filter", "message": "Filtered."}}, "BAD_REQUEST"),
    ("azure", 503, {"error": {"code": "NoCapacity", "message": "The system is busy."}}, "PRESSURE"),
    ("azure", 500, {"error": {"code": "InternalServerError", "message": "Oops."}}, "OUTAGE"),
    ("bedrock", 403, {"message": "The security token included in the request is invalid."}, "KEY_REJECTED"),
    ("bedrock", 403, {"message": "The security token included in the request is expired"}, "KEY_REJECTED"),
    ("bedrock", 403, {"Message": "Authentication failed: Please make sure your API Key is valid."}, "KEY_REJECTED"),
    ("bedrock", 403, {"message": "Bearer Token has expired"}, "KEY_REJECTED"),
    ("bedrock", 403, {"__type": "com.amazon.coral.service#UnrecognizedClientException"}, "KEY_REJECTED"),
    ("bedrock", 403, {"message": "You don't have access to the model with the specified model ID."}, "LIMITED"),
    ("bedrock", 401, {"message": "This model is not available for this account."}, "LIMITED"),
    ("bedrock", 403, {"message": "INVALID_PAYMENT_INSTRUMENT: a valid payment instrument is needed"}, "NO_MONEY"),
    ("bedrock", 400, {"__type": "ServiceQuotaExceededException", "message": "Too much."}, "NO_MONEY"),
    ("bedrock", 401, openai_error("Invalid bearer token", "authentication_error"), "KEY_REJECTED"),
    ("bedrock", 400, {"message": "messages.1: Invalid signature in thinking block"}, "BAD_REQUEST"),
    ("bedrock", 400, {"message": "The provided model identifier is invalid."}, "BAD_REQUEST"),
    ("bedrock", 429, {"message": "Too many tokens, please wait before trying again."}, "PRESSURE"),
    ("bedrock", 429, {"message": "Model is not ready for inference."}, "PRESSURE"),
    ("bedrock", 424, {"message": "The model returned an error."}, "OUTAGE"),
    ("bedrock", 408, {"message": "Model has timed out."}, "OUTAGE"),
    ("bedrock", 500, {"message": "Internal."}, "OUTAGE"),
    ("vertex", 401, google_error(401, "UNAUTHENTICATED", "Invalid credentials."), "KEY_REJECTED"),
    ("vertex", 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, "KEY_REJECTED"),
    ("vertex", 403, google_error(403, "PERMISSION_DENIED", "Denied.", "IAM_PERMISSION_DENIED"), "LIMITED"),
    ("vertex", 403, google_error(403, "PERMISSION_DENIED", "Not enabled.", "SERVICE_DISABLED"), "LIMITED"),
    ("vertex", 403, google_error(403, "PERMISSION_DENIED", "Enable it.", "BILLING_DISABLED"), "NO_MONEY"),
    ("vertex", 429, google_error(429, "RESOURCE_EXHAUSTED", "Resource exhausted."), "PRESSURE"),
    ("vertex", 400, google_error(400, "INVALID_ARGUMENT", "Temperature is too high."), "BAD_REQUEST"),
    ("vertex", 503, google_error(503, "UNAVAILABLE", "Down."), "OUTAGE"),
    ("huggingface", 401, {"error": "Invalid credentials in Authorization header"}, "KEY_REJECTED"),
    ("huggingface", 402, {"error": "You have exceeded your monthly included credits."}, "NO_MONEY"),
    ("huggingface", 403, {"error": "This method does not have sufficient permissions to call it."}, "LIMITED"),
    ("huggingface", 503, {"error": "Model x is currently loading", "estimated_time": 20.0}, "PRESSURE"),
    ("huggingface", 400, {"error": "The model is not supported by this provider."}, "BAD_REQUEST"),
    (
        "qwen",
        401,
        openai_error("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
        "KEY_REJECTED",
    ),
    ("qwen", 400, openai_error("Your account is not in good standing.", "Arrearage", "Arrearage"), "NO_MONEY"),
    ("qwen", 403, openai_error("Free tier only.", None, "AllocationQuota.FreeTierOnly"), "NO_MONEY"),
    ("qwen", 403, openai_error("Not bought.", None, "AccessDenied.Unpurchased"), "LIMITED"),
    ("qwen", 429, openai_error("Quota of the minute.", "insufficient_quota", "insufficient_quota"), "PRESSURE"),
    ("qwen", 400, openai_error("Bad.", "invalid_request_error", "data_inspection_failed"), "BAD_REQUEST"),
    ("zai", 401, {"error": {"code": "1002", "message": "Token is wrong"}}, "KEY_REJECTED"),
    ("zai", 429, {"error": {"code": "1113", "message": "No resource package. Please recharge."}}, "NO_MONEY"),
    ("zai", 429, {"error": {"code": "1302", "message": "Too many at once"}}, "PRESSURE"),
    ("zai", 429, {"error": {"code": "1308", "message": "Usage limit of 5 hours"}}, "PRESSURE"),
    ("zai", 400, {"error": {"code": "1301", "message": "Unsafe content"}}, "BAD_REQUEST"),
    ("zai", 429, {"error": {"code": "1311", "message": "Not in your plan"}}, "LIMITED"),
    ("zai", 500, {"error": {"code": "1234", "message": "Network error"}}, "OUTAGE"),
    ("moonshot", 401, openai_error("Invalid Authentication", "invalid_authentication_error"), "KEY_REJECTED"),
    ("moonshot", 429, openai_error("Overloaded", "engine_overloaded_error"), "PRESSURE"),
    ("moonshot", 429, openai_error("Your account x has insufficient balance", "rate_limit"), "NO_MONEY"),
    ("moonshot", 400, openai_error("Too long", "invalid_request_error"), "BAD_REQUEST"),
    ("ollama", 401, {"error": "unauthorized"}, "KEY_REJECTED"),
    ("ollama", 404, {"error": "model 'x' not found"}, "BAD_REQUEST"),
    ("ollama", 503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, "PRESSURE"),
    ("ollama", 500, {"error": "llama runner process has terminated"}, "OUTAGE"),
    ("openai", 429, openai_error("Add a payment method to raise your rate limit.", "requests"), "PRESSURE"),
]


@pytest.mark.parametrize(("slug", "status", "body", "failure"), CASES)
def test_a_refusal_is_read_by_provider_status_and_words(slug: str, status: int, body: object, failure: str) -> None:
    """Key, money, pressure, limits, outages and bad requests are told apart, whatever status a provider uses."""
    assert classify(find(slug), status, json.dumps(body).encode()) is Failure[failure]


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b"{"])
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 429, 500, 502, 503, 529, 599])
def test_a_body_that_says_nothing_is_read_by_its_status(status: int, body: bytes) -> None:
    """Whatever the body is, classification never raises, and the status decides."""
    expected = BY_STATUS.get(status, Failure.OUTAGE if status >= 500 else Failure.BAD_REQUEST)
    assert classify(find("openai"), status, body) is expected


def test_half_a_body_counts_for_what_it_says() -> None:
    """A body that broke off is read as far as it came: no credit is no pressure if its word is there."""
    whole = b'{"error": {"type": "insufficient_quota", "message": "You exceeded your current quota", "param": null}}'
    for length in range(len(whole)):
        known = b'"insufficient_quota"' in whole[:length]
        expected = Failure.NO_MONEY if known else Failure.PRESSURE
        assert classify(find("openai"), 429, whole[:length]) is expected


@pytest.mark.parametrize("status", [200, 204, 302, 399])
def test_what_is_no_error_is_no_failure(status: int) -> None:
    """Below 400 there is nothing to classify."""
    assert classify(find("openai"), status, b'{"error":{"code":"insufficient_quota"}}') is None


ECHOES = [
    ("gemini", 400, google_error(400, "INVALID_ARGUMENT", 'Invalid JSON payload. Unknown name "API key not valid".')),
    ("gemini", 400, google_error(400, "INVALID_ARGUMENT", 'Unknown name "User location is not supported": No field.')),
    ("vertex", 400, google_error(400, "INVALID_ARGUMENT", 'Unknown name "billing to be enabled": No field.')),
    ("bedrock", 400, {"message": "Malformed input request: #: extraneous key [payment method] is not permitted"}),
    ("openai", 400, openai_error("Invalid value: 'out of credits'. Supported values are: 'low'.", "invalid_value")),
    ("xai", 400, {"code": "Client error", "error": "Unknown field: invalid API key"}),
    ("anthropic", 400, anthropic_error("invalid_request_error", "Unexpected value `credit balance is too low`.")),
    ("mistral", 422, {"detail": [{"type": "extra_forbidden", "msg": "No", "input": {"code": "insufficient_quota"}}]}),
    ("mistral", 400, {"detail": [{"type": "extra_forbidden", "msg": "No", "input": {"code": "insufficient_quota"}}]}),
]


@pytest.mark.parametrize(("slug", "status", "body"), ECHOES)
def test_what_a_caller_wrote_says_nothing_of_the_key(slug: str, status: int, body: object) -> None:
    """Providers quote what was wrong with a request: nobody makes a key look rejected, or without credit, by that."""
    assert classify(find(slug), status, json.dumps(body).encode()) is Failure.BAD_REQUEST


def test_a_model_of_any_name_may_be_refused() -> None:
    """OpenAI quotes the model, whatever it is called, when a project may not use it."""
    body = openai_error("Project x does not have access to model `out of credits`", None, "model_not_found")
    assert classify(find("openai"), 403, json.dumps(body).encode()) is Failure.LIMITED


@pytest.mark.parametrize("slug", ["bedrock", "huggingface", "vertex", "azure"])
@pytest.mark.parametrize(
    "word", ["account", "monthly ", "security token ", "billing account ", "access", '"message":"']
)
def test_reading_a_refusal_takes_a_moment(slug: str, word: str) -> None:
    """However long a body is, and whatever it repeats, as text or in many messages."""
    text = (word * 20_000)[:65_536]
    bodies = (text, json.dumps({str(number): {"message": text[:2_000]} for number in range(500)}))
    began = time.perf_counter()
    for status in (400, 403, 429):
        for body in bodies:
            classify(find(slug), status, body.encode())
    assert time.perf_counter() - began < 1.5


def test_rows_name_known_providers() -> None:
    """A row limited to some providers names ones that exist, so a typing error cannot disable it."""
    assert {name for row in TABLE for name in row.providers} <= set(PROVIDERS)


def test_the_message_for_people_is_found_and_short() -> None:
    """The provider's sentence is taken from wherever its format has it, on one line, at most 300 characters."""
    assert message_of(json.dumps(anthropic_error("api_error", "Oh\n no")).encode()) == "Oh no"
    assert message_of(b'{"error":"plain text"}') == "plain text"
    assert message_of(b'{"detail":"not found"}') == "not found"
    assert message_of(b"<html>") == ""
    assert message_of(b'{"message":"No\\u0000 \\u001b[31mway"}') == "No [31mway"
    assert len(message_of(json.dumps(openai_error("x" * 5000)).encode())) == 300


def test_what_stands_deep_or_far_in_is_not_searched_for() -> None:
    """An error is near the top of its body; the rest is somebody's text."""
    deep: object = {"code": "insufficient_quota"}
    for _ in range(10):
        deep = {"inner": [deep]}
    assert classify(find("openai"), 429, json.dumps(deep).encode()) is Failure.PRESSURE
