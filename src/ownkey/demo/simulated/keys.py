"""Whose key is it, and what may it do: the refusals of a provider, in its own words.

A key is accepted when it begins with one of the company's prefixes (see ``companies``). Words inside an accepted
key ask for a state, so that each can be tried:

``nocredit``  the account has no money      ``limited``  the key may not do this
``slow``      too many requests, come back in five seconds
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from ownkey.demo.simulated.companies import COMPANIES, Company
from ownkey.demo.simulated.wire import Json, Refusal

PLATFORM_KEYS: Mapping[str, str] = {slug: row.key_prefixes[0] + "platform" for slug, row in COMPANIES.items()}
"""A key of each company that works, for the operator of the demo: ``sk-demo-platform`` and so on."""

_STATES = ("nocredit", "limited", "slow")
_RETRY = {"retry-after": "5"}


def key_of(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """The key of a request, from any of the places an SDK puts it; empty if there is none."""
    bearer = headers.get("authorization", "")
    if bearer.lower().startswith("bearer "):
        return bearer[7:].strip()
    return headers.get("x-api-key") or headers.get("x-goog-api-key") or headers.get("api-key") or query.get("key", "")


def check(company: Company, key: str) -> None:
    """Raise the company's own refusal unless the key may be used."""
    if not key.startswith(company.key_prefixes):
        raise _rejected(company, key)
    for state in _STATES:
        if state in key:
            raise _in_state(company, state)


def openai_error(status: int, message: str, kind: str, code: str | None, param: str | None = None) -> Refusal:
    """A refusal in OpenAI's shape."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return Refusal(status, body, _RETRY if kind == "tokens" else None)


def anthropic_error(status: int, kind: str, message: str) -> Refusal:
    """A refusal in Anthropic's shape."""
    request_id = f"req_{secrets.token_hex(12)}"
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    return Refusal(status, body, {"request-id": request_id, **(_RETRY if kind == "rate_limit_error" else {})})


def gemini_error(code: int, status: str, message: str, details: list[Json] | None = None) -> Refusal:
    """A refusal in Google's shape."""
    error: Json = {"code": code, "message": message, "status": status}
    return Refusal(code, {"error": {**error, "details": details} if details else error})


def _rejected(company: Company, key: str) -> Refusal:
    if company.dialect == "anthropic":
        message = "invalid x-api-key" if key else "x-api-key header is required"
        return anthropic_error(401, "authentication_error", message)
    if company.dialect == "gemini":
        if not key:
            message = "Method doesn't allow unregistered callers (callers without established identity)."
            return gemini_error(403, "PERMISSION_DENIED", message)
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": {"service": "generativelanguage.googleapis.com"},
        }
        return gemini_error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", [info])
    if company.slug == "openrouter":
        return Refusal(401, {"error": {"code": 401, "message": "User not found."}})
    if not key:
        message = "You didn't provide an API key. Provide it in an Authorization header using Bearer auth."
        return openai_error(401, message, "invalid_request_error", None)
    shown = f"{key[:8]}{'*' * 12}{key[-4:]}" if len(key) > 16 else "*" * len(key)
    return openai_error(401, f"Incorrect API key provided: {shown}.", "invalid_request_error", "invalid_api_key")


def _in_state(company: Company, state: str) -> Refusal:
    if company.dialect == "anthropic":
        return anthropic_error(*_ANTHROPIC_STATES[state])
    if company.dialect == "gemini":
        return gemini_error(*_GEMINI_STATES[state])
    if state == "nocredit" and company.slug != "openai":
        if company.slug == "openrouter":
            return Refusal(402, {"error": {"code": 402, "message": "Insufficient credits. Add more to continue."}})
        return openai_error(402, "Insufficient Balance", "unknown_error", "invalid_request_error")
    return openai_error(*_OPENAI_STATES[state])


_OPENAI_STATES: Mapping[str, tuple[int, str, str, str]] = {
    "nocredit": (
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
        "insufficient_quota",
    ),
    "limited": (
        403,
        "You have insufficient permissions for this operation. Missing scopes: model.request.",
        "invalid_request_error",
        "missing_scope",
    ),
    "slow": (429, "Rate limit reached on requests per min (RPM). Try again in 5s.", "tokens", "rate_limit_exceeded"),
}
_ANTHROPIC_STATES: Mapping[str, tuple[int, str, str]] = {
    "nocredit": (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. "
        "Please go to Plans & Billing to upgrade or purchase credits.",
    ),
    "limited": (403, "permission_error", "Your API key does not have permission to use the specified resource."),
    "slow": (429, "rate_limit_error", "This request would exceed your organization's rate limit."),
}
_GEMINI_STATES: Mapping[str, tuple[int, str, str, list[Json]]] = {
    "nocredit": (
        429,
        "RESOURCE_EXHAUSTED",
        "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing.",
        [],
    ),
    "limited": (403, "PERMISSION_DENIED", "The caller does not have permission", []),
    "slow": (
        429,
        "RESOURCE_EXHAUSTED",
        "Resource has been exhausted (e.g. check quota).",
        [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "5s"}],
    ),
}
