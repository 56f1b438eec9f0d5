"""A sentence shown once, on the page a form redirects to; it travels in a short-lived signed cookie, not in the URL."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from ownkey.web import session

Kind = Literal["success", "info", "warning", "danger"]
_LIFETIME = timedelta(minutes=1)
_MOST_BYTES = 2000  # a cookie has room for 4096, with its name and attributes, and base64 makes four bytes of three


@dataclass(frozen=True, slots=True)
class Notice:
    """What to tell, and how it is meant."""

    text: str
    kind: Kind = "success"


def leave(request: Request, response: Response, notice: Notice) -> None:
    """Keep a notice for the next page this browser sees."""
    text = notice.text.encode()[:_MOST_BYTES].decode(errors="ignore")
    told = base64.urlsafe_b64encode(json.dumps([notice.kind, text], ensure_ascii=False).encode()).decode()
    session.set_cookie(request, response, "notice", f"{told}.{_signature(request, told)}", _LIFETIME)


def find(request: Request) -> Notice | None:
    """The notice left for this page, or None. Whoever shows it also calls ``clear``."""
    told, _, signature = session.read_cookie(request, "notice").partition(".")
    if not told or not hmac.compare_digest(_signature(request, told).encode(), signature.encode()):
        return None
    kind, text = json.loads(base64.urlsafe_b64decode(told))
    return Notice(text, kind)


def clear(request: Request, response: Response) -> None:
    """Forget the notice that was shown."""
    session.delete_cookie(request, response, "notice")


def _signature(request: Request, told: str) -> str:
    return hmac.new(session.browser_key(request), b"ownkey/notice/v1" + told.encode(), hashlib.sha256).hexdigest()
