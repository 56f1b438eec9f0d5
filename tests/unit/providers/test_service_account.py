"""A service account's document: what is one, what is never shown of it, and where its assertion goes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ownkey.credentials import Secret
from ownkey.errors import InvalidRequest
from ownkey.providers import service_account
from ownkey.providers.health import Health
from ownkey.providers.key_check import check
from ownkey.providers.provider import KeyCheck
from ownkey.providers.redaction import redact_text
from ownkey.providers.registry import find
from ownkey.providers.service_account import ServiceAccount, TokenRefused, TokenServiceFailed, email_of
from tests.fakes.provider import FakeProvider
from tests.fakes.token_service import TokenService, document

BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQDsecretsecret"
PEM = f"-----BEGIN PRIVATE KEY-----\n{BODY}\n-----END PRIVATE KEY-----\n"
EMAIL = "robot@project.iam.gserviceaccount.com"


@pytest.fixture
def google() -> Iterator[TokenService]:
    """Google's token service."""
    with TokenService() as google:
        yield google


def test_a_document_is_read() -> None:
    """The e-mail address says whose key it is; the whole document is the secret."""
    account = ServiceAccount.read(document(EMAIL, PEM))
    assert (account.email, account.private_key_id) == (EMAIL, "0123456789abcdef")
    assert email_of(Secret(document(EMAIL, PEM))) == EMAIL
    assert "secret" not in repr(account)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-secret-0123456789",
        "[]",
        "{}",
        '{"client_email": "a@b"}',
        document(EMAIL, PEM)[:-20],
        document(EMAIL, "secret"),
        document("nobody", PEM),
        document(EMAIL, PEM, type="authorized_user"),
        document(EMAIL, PEM, token_uri="https://evil.example/token"),
        document(EMAIL, PEM, token_uri="http://169.254.169.254/token"),
        document(EMAIL, PEM, token_uri="https://oauth2.googleapis.com.evil.example/token"),
        "[" * 100_000,
    ],
)
def test_what_is_no_document_is_refused_without_showing_it(text: str) -> None:
    """Another kind of JSON, a part of one, or one that names another token service: a sentence that shows nothing."""
    with pytest.raises(InvalidRequest) as refused:
        ServiceAccount.read(text)
    assert "secret" not in str(refused.value)
    assert "evil" not in str(refused.value)


@pytest.mark.parametrize(
    "uri", ["https://accounts.google.com/o/oauth2/token", "https://www.googleapis.com/oauth2/v4/token"]
)
def test_an_earlier_document_is_one_too(uri: str) -> None:
    """Google wrote other addresses into documents before; where the assertion goes does not depend on them."""
    assert ServiceAccount.read(document(EMAIL, PEM, token_uri=uri)).email == EMAIL


def test_the_operators_token_service_may_stand_in_the_document() -> None:
    """A document made for the operator's own proxy is one, too."""
    text = document(EMAIL, PEM, token_uri="https://tokens.corp/token")
    assert ServiceAccount.read(text, "https://tokens.corp/token").email == EMAIL


def test_nothing_of_the_private_key_is_shown() -> None:
    """Whether a text has the key with its line breaks, escaped, or without them, it is taken out."""
    account = ServiceAccount.read(document(EMAIL, PEM))
    body = "".join(PEM.splitlines()[1:-1])
    for text in (f"bad key {PEM}!", f"bad key {json.dumps(PEM)}!", f"bad key {body}!"):
        assert "secretsecret" not in redact_text(text, *account.secrets)


@pytest.mark.anyio
async def test_a_token_is_given_for_a_signed_assertion(google: TokenService) -> None:
    """The assertion is RS256 by the document's key, for Google, and good for minutes; the fake checks that."""
    account = ServiceAccount.read(google.account("robot"))
    before = time.monotonic()
    token = await service_account.fetch(account, google.url)
    assert token.secret.reveal() == google.given[0]
    assert before + 3500 < token.expires_at <= time.monotonic() + 3600


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, TokenRefused),
        (401, {"error": "invalid_client"}, TokenRefused),
        (403, {}, TokenServiceFailed),
        (404, {"error": "not_found"}, TokenServiceFailed),
        (400, {"error": "invalid_request", "error_description": "Missing: assertion"}, TokenServiceFailed),
        (
            400,
            {
                "error": "invalid_grant",
                "error_description": "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable "
                "timeframe. Check your iat and exp values in the JWT claim.",
            },
            TokenServiceFailed,
        ),
        (400, {"error": "invalid_grant", "error_description": "Invalid grant: account not found"}, TokenRefused),
        (429, {}, TokenServiceFailed),
        (408, {}, TokenServiceFailed),
        (500, {"error": "internal_failure"}, TokenServiceFailed),
        (302, {}, TokenServiceFailed),
        (200, {}, TokenServiceFailed),
        (200, {"access_token": ""}, TokenServiceFailed),
        (200, {"access_token": "two words"}, TokenServiceFailed),
        (200, {"access_token": "line\r\nbreak"}, TokenServiceFailed),
        (200, {"access_token": "x" * 9000}, TokenServiceFailed),
        (200, {"access_token": 5}, TokenServiceFailed),
    ],
)
async def test_no_token(google: TokenService, status: int, body: dict[str, object], kind: type[Exception]) -> None:
    """Only a clear no is about the key; anything else is an outage, and no text of a reply becomes a header."""
    account = ServiceAccount.read(google.account("robot"))
    google.answers.append((status, body))
    with pytest.raises(kind):
        await service_account.fetch(account, google.url)


@pytest.mark.anyio
@pytest.mark.parametrize("pem", [PEM, "-----BEGIN PRIVATE KEY-----", "PRIVATE KEY"])
async def test_a_private_key_that_is_none_is_refused_without_a_request(google: TokenService, pem: str) -> None:
    """A damaged private key is told as such; nothing is asked, and nothing of it shown."""
    account = ServiceAccount.read(document(EMAIL, pem))
    with pytest.raises(TokenRefused) as refused:
        await service_account.fetch(account, google.url)
    assert google.asked == []
    assert str(refused.value) == "The private key in the service account key cannot be read."
    assert refused.value.__cause__ is None


@pytest.mark.anyio
async def test_the_check_of_a_document(google: TokenService) -> None:
    """A key that gets a token is good; where the row names a path, the token is tried there, never the document."""
    vertex, text = find("vertex"), Secret(google.account("robot"))
    assert (await check(vertex, "http://127.0.0.1:1", text, token_url=google.url)).health is Health.ACTIVE
    with FakeProvider() as provider:
        row = replace(vertex, check=KeyCheck("/v1/models"))
        assert (await check(row, provider.url, text, token_url=google.url)).health is Health.ACTIVE
        assert provider.last.key == google.given[-1]
        provider.accept([])
        refused = await check(row, provider.url, text, token_url=google.url)
        assert refused.health is Health.REJECTED
        assert google.given[-1] not in refused.said
    google.accounts.clear()
    refused = await check(vertex, "http://127.0.0.1:1", text, token_url=google.url)
    assert (refused.health, "invalid_grant" in refused.said) == (Health.REJECTED, True)
    assert (await check(vertex, "", text, token_url="http://127.0.0.1:1/token")).health is Health.UNREACHABLE
    assert (await check(vertex, "", Secret("{}"), token_url=google.url)).health is Health.REJECTED
