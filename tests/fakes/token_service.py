"""A fake of Google's token service: checks the signed assertion as Google does, and counts what it gave."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

AUDIENCE = "https://oauth2.googleapis.com/token"


class TokenService:
    """Gives ``ya29.<number>`` for the key of a known service account, and ``invalid_grant`` for any other.

    ``answers`` are (status, body) pairs to send instead, one request each; ``hold`` lets requests wait for ``release``.
    """

    def __init__(self) -> None:
        self.accounts: dict[str, RSAKey] = {}
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.lifetime: float = 3600
        self.given: list[str] = []
        self.asked: list[str] = []
        self._open = threading.Event()
        self._open.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """What ``OWNKEY_GOOGLE_TOKEN_URL`` is set to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/token"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()

    def account(self, name: str) -> str:
        """A new key of a service account: its JSON document."""
        key, email = RSAKey.generate_key(2048), f"{name}@project.iam.gserviceaccount.com"
        self.accounts[email] = key
        return document(email, key.as_pem(private=True).decode())

    def hold(self) -> None:
        """Answer nobody until ``release``."""
        self._open.clear()

    def release(self) -> None:
        """Answer those who wait, and everybody after them."""
        self._open.set()

    def answer(self, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """What a request gets."""
        assertion = form.get("assertion", [""])[0]
        email = self._signer(assertion)
        self.asked.append(email)
        self._open.wait(20)
        if self.answers:
            return self.answers.pop(0)
        if not email or form.get("grant_type") != ["urn:ietf:params:oauth:grant-type:jwt-bearer"]:
            return 400, {"error": "invalid_grant", "error_description": f"Invalid JWT Signature. {assertion}"}
        self.given.append(f"ya29.{email.partition('@')[0]}-{len(self.given) + 1:08}")
        return 200, {"access_token": self.given[-1], "expires_in": self.lifetime, "token_type": "Bearer"}

    def _signer(self, assertion: str) -> str:
        for email, key in self.accounts.items():
            try:
                claims = jwt.decode(assertion, key, algorithms=["RS256"]).claims
            except (JoseError, ValueError):
                continue
            current = claims["iat"] - 60 < time.time() < claims["exp"] <= claims["iat"] + 3600
            if current and (claims["iss"], claims["aud"]) == (email, AUDIENCE) and "cloud-platform" in claims["scope"]:
                return email
        return ""


def document(email: str, private_key: str, **changes: str) -> str:
    """A service account's key as Google's console gives it."""
    fields = {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "0123456789abcdef",
        "private_key": private_key,
        "client_email": email,
        "client_id": "100000000000000000000",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": AUDIENCE,
        "universe_domain": "googleapis.com",
    }
    return json.dumps({**fields, **changes}, indent=2)


def _handler(service: TokenService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            status, answer = service.answer(form)
            body = json.dumps(answer).encode()
            try:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # whoever asked did not wait

        def log_message(self, format: str, *args: object) -> None: ...

    return Handler
