"""How each of our errors is called in the formats that name errors: one table, by our code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ownkey.errors import OwnkeyError


class ErrorWords(NamedTuple):
    """A provider's words for one of our codes: OpenAI's and Anthropic's ``type``, Gemini's ``status``, AWS's exception.

    AWS's SDKs try a ``ThrottlingException`` again, so what does not pass by waiting has another name.
    """

    openai: str
    anthropic: str
    gemini: str
    bedrock: str


_INTERNAL = ErrorWords("server_error", "api_error", "INTERNAL", "InternalServerException")
_PERMISSION = ErrorWords("permission_error", "permission_error", "PERMISSION_DENIED", "AccessDeniedException")

ERROR_WORDS: Mapping[str, ErrorWords] = {
    "invalid_request": ErrorWords(
        "invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT", "ValidationException"
    ),
    "not_authenticated": ErrorWords(
        "authentication_error", "authentication_error", "UNAUTHENTICATED", "UnrecognizedClientException"
    ),
    "forbidden": _PERMISSION,
    "provider_not_available": _PERMISSION,
    "provider_key_rejected": _PERMISSION,
    "not_found": ErrorWords("invalid_request_error", "not_found_error", "NOT_FOUND", "ResourceNotFoundException"),
    "model_not_found": ErrorWords("invalid_request_error", "not_found_error", "NOT_FOUND", "ResourceNotFoundException"),
    "request_too_large": ErrorWords(
        "invalid_request_error", "request_too_large", "INVALID_ARGUMENT", "ValidationException"
    ),
    "request_limit_reached": ErrorWords(
        "rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED", "ServiceQuotaExceededException"
    ),
    "allowance_exhausted": ErrorWords(
        "insufficient_quota", "rate_limit_error", "RESOURCE_EXHAUSTED", "ServiceQuotaExceededException"
    ),
    "cap_reached": ErrorWords(
        "insufficient_quota", "rate_limit_error", "RESOURCE_EXHAUSTED", "ServiceQuotaExceededException"
    ),
    "provider_failed": ErrorWords("server_error", "api_error", "UNAVAILABLE", "InternalServerException"),
    "unavailable": ErrorWords("server_error", "overloaded_error", "UNAVAILABLE", "ServiceUnavailableException"),
    "provider_timed_out": ErrorWords("server_error", "timeout_error", "DEADLINE_EXCEEDED", "InternalServerException"),
    "internal": _INTERNAL,
}

# What a code that is not in the table is called, by its status.
_BY_STATUS: Mapping[int, ErrorWords] = {
    400: ERROR_WORDS["invalid_request"],
    401: ERROR_WORDS["not_authenticated"],
    403: _PERMISSION,
    404: ERROR_WORDS["not_found"],
    413: ERROR_WORDS["request_too_large"],
    429: ERROR_WORDS["request_limit_reached"],
    502: ERROR_WORDS["provider_failed"],
    503: ERROR_WORDS["unavailable"],
    504: ERROR_WORDS["provider_timed_out"],
}


def words_for(error: OwnkeyError) -> ErrorWords:
    """The formats' words for an error of ours."""
    known = ERROR_WORDS.get(error.code) or _BY_STATUS.get(error.status)
    if known is not None:
        return known
    return ERROR_WORDS["invalid_request"] if 400 <= error.status < 500 else _INTERNAL


def extra_members(error: OwnkeyError, taken: frozenset[str]) -> dict[str, object]:
    """The error's details, such as ``resets_at``, as further members; never one the format has already."""
    return {name: value for name, value in error.detail.items() if name not in taken}
