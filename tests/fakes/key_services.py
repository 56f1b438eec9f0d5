"""AWS KMS and HashiCorp Vault's transit engine, as far as a key encryption key needs them."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from uuid import uuid4

AWS_KEY = "aws-kms://arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
VAULT_KEY = "hcvault://transit/keys/ownkey"


class FakeKeyServices:
    """Both on one port. What it wrapped it remembers, with the key and context that have to be given again."""

    def __init__(self) -> None:
        self.wrapped: dict[str, tuple[str, str, str]] = {}
        self.asked: list[str] = []
        self.refuse = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", 0))
                given = json.loads(self.rfile.read(length) or b"{}")
                status, reply = outer.answer(self.path, self.headers.get("x-amz-target", ""), given)
                body = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_PUT = do_POST

            def log_message(self, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """How the services' libraries find it."""
        return {
            "AWS_ENDPOINT_URL_KMS": self.url,
            "AWS_ACCESS_KEY_ID": "an-id",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_MAX_ATTEMPTS": "1",
            "VAULT_ADDR": self.url,
            "VAULT_TOKEN": "a-token",
        }

    def answer(self, path: str, target: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """One question."""
        self.asked.append(target or path)
        if self.refuse:
            return 400, {"__type": "AccessDeniedException", "errors": ["permission denied"]}
        if target:
            return self._aws(target.partition(".")[2], given)
        _, _, mount, verb, name = path.split("/")
        if verb == "encrypt":
            return 200, {"data": {"ciphertext": "vault:v1:" + self._keep(f"{mount}/{name}", "", given["plaintext"])}}
        plain = self._open(f"{mount}/{name}", "", given["ciphertext"].removeprefix("vault:v1:"))
        return (200, {"data": {"plaintext": plain}}) if plain else (400, {"errors": ["cipher: failed"]})

    def _aws(self, verb: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        context = json.dumps(given.get("EncryptionContext"), sort_keys=True)
        if verb == "Encrypt":
            token = self._keep(given["KeyId"], context, given["Plaintext"])
            return 200, {"CiphertextBlob": base64.b64encode(token.encode()).decode(), "KeyId": given["KeyId"]}
        plain = self._open(given["KeyId"], context, base64.b64decode(given["CiphertextBlob"]).decode())
        return (200, {"Plaintext": plain}) if plain else (400, {"__type": "InvalidCiphertextException"})

    def _keep(self, key: str, context: str, plain: str) -> str:
        token = uuid4().hex
        self.wrapped[token] = (key, context, plain)
        return token

    def _open(self, key: str, context: str, token: str) -> str | None:
        found = self.wrapped.get(token)
        return found[2] if found and found[:2] == (key, context) else None
