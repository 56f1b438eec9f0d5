"""Every error a caller can see: one class per condition, with its code, status and sentence.

The class decides code and status; nobody renders here. The edges do: a page, a problem document
(RFC 9457), or a dialect in its provider's own shape.
"""

from __future__ import annotations

from collections.abc import Mapping


class OwnkeyError(Exception):
    """A refusal or failure with a stable code; the message tells the reader what to do."""

    code: str = "internal"
    status: int = 500
    sentence: str = "Something went wrong on our side. Try again; if it stays, tell whoever runs this service."

    def __init__(
        self,
        message: str | None = None,
        *,
        detail: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or self.sentence
        self.detail = dict(detail or {})
        self.headers = dict(headers or {})
        super().__init__(self.message)


class Internal(OwnkeyError):
    """Anything we did not foresee; the cause is in the log, never in the reply."""


class InvalidRequest(OwnkeyError):
    """The request cannot be used as it is."""

    code, status = "invalid_request", 400
    sentence = "The request could not be read. Check its body and parameters."


class NotAuthenticated(OwnkeyError):
    """No credential of ours, an unknown one, or a revoked one."""

    code, status = "not_authenticated", 401
    sentence = "This needs a valid API token, which begins with ownkey_. Create one under Settings → Developer."


class Forbidden(OwnkeyError):
    """Known caller, but scope, role or plan does not allow this."""

    code, status = "forbidden", 403
    sentence = "You are not allowed to do this. Ask an admin of your workspace."


class ProviderNotAvailable(OwnkeyError):
    """Neither an own key nor a platform key exists for the provider."""

    code, status = "provider_not_available", 403
    sentence = "This provider is not available here. A key can be connected under Settings → Integrations."


class ProviderKeyRejected(OwnkeyError):
    """The provider refused the organization's own key."""

    code, status = "provider_key_rejected", 403
    sentence = "The provider refused your organization's API key. It can be updated under Settings → Integrations."


class NotFound(OwnkeyError):
    """No such thing, or not yours: the two are never told apart."""

    code, status = "not_found", 404
    sentence = "There is nothing here, or it is not yours."


class Conflict(OwnkeyError):
    """The thing exists already, or has changed meanwhile."""

    code, status = "conflict", 409
    sentence = "This was changed or exists already. Reload and try again."


class PlanLimitReached(OwnkeyError):
    """The plan does not include this."""

    code, status = "plan_limit_reached", 409
    sentence = "Your plan does not include this. The owner can change the plan under Settings → Billing."


class Expired(OwnkeyError):
    """A link that was used or is too old."""

    code, status = "expired", 410
    sentence = "This link was used already or has expired. Ask for a new one."


class RequestTimedOut(OwnkeyError):
    """The request did not arrive in time: its head was not whole, or its body came too slowly."""

    code, status = "request_timed_out", 408
    sentence = "The request did not arrive in time. Send it again, without pauses."


class RequestTooLarge(OwnkeyError):
    """The body is larger than we accept."""

    code, status = "request_too_large", 413
    sentence = "The request body is too large."


class HeadTooLarge(OwnkeyError):
    """The head of the request is larger than we accept."""

    code, status = "head_too_large", 431
    sentence = "The head of the request is too large. Send fewer or shorter header fields, or a shorter address."


class TooManyAttempts(OwnkeyError):
    """Too many failed sign-ins for one account."""

    code, status = "too_many_attempts", 429
    sentence = "Too many failed attempts. Wait a few minutes, then try again."


class RequestLimitReached(OwnkeyError):
    """The API token has used its requests of this month."""

    code, status = "request_limit_reached", 429
    sentence = "This API token has used all its requests of this month."


class AllowanceExhausted(OwnkeyError):
    """The organization's monthly allowance has no room for this call."""

    code, status = "allowance_exhausted", 429
    sentence = "Your organization has used its AI tokens of this month."


class CapReached(OwnkeyError):
    """A cap on the member or the workspace has no room for this call."""

    code, status = "cap_reached", 429
    sentence = "A cap on your usage of this month is reached. An admin or the owner can raise it."


class ProviderFailed(OwnkeyError):
    """The provider could not be reached or broke off."""

    code, status = "provider_failed", 502
    sentence = "The AI provider could not be reached or broke off its reply. Try again."


class Unavailable(OwnkeyError):
    """We cannot serve now: the database is away, the vault is locked, or we are shutting down."""

    code, status = "unavailable", 503
    sentence = "The service is not available for the moment. Try again shortly."

    def __init__(
        self,
        message: str | None = None,
        *,
        detail: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, detail=detail, headers={"retry-after": "5", **(headers or {})})


class ProviderTimedOut(OwnkeyError):
    """The provider did not answer in time."""

    code, status = "provider_timed_out", 504
    sentence = "The AI provider did not answer in time. Try again."
