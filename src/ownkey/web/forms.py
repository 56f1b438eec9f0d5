"""Read a form, once it is proved to come from our own page, and collect what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from ownkey.accounts.names import clean_name
from ownkey.errors import InvalidRequest, RequestTooLarge
from ownkey.web import session

LARGEST_FORM = 256 * 1024
MOST_FIELDS = 500
# A separator of one kind stands between groups of three digits only: 1.5 is not fifteen, nor 0.500 five hundred.
_WHOLE_NUMBER = re.compile(r"[0-9]{1,20}|[1-9][0-9]{0,2}(?:([,. ])[0-9]{3}(?:\1[0-9]{3}){0,5})")


class Form(Mapping[str, str]):
    """The fields that were sent, and the sentence for each that cannot be used."""

    def __init__(self, fields: Collection[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            self._fields.setdefault(name, []).append(value)
        self.errors: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        return self._fields[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __bool__(self) -> bool:
        return True

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong so far."""
        return not self.errors

    def many(self, name: str) -> list[str]:
        """Every value sent under one name, for checkboxes."""
        return list(self._fields.get(name, ()))

    def text(self, name: str, label: str, *, longest: int = 200, required: bool = True) -> str:
        """One line of text, without white space around it; notes an error if it is missing or too long."""
        value = self.get(name, "").strip()
        if required and not value:
            self.fail(name, f"Enter {label}.")
        elif len(value) > longest:
            self.fail(name, f"Use at most {longest} characters.")
        elif any(ord(character) < 32 or ord(character) == 127 for character in value):
            self.fail(name, "Use plain text without line breaks or control characters.")
        return value

    def own_name(self) -> str:
        """What somebody in ``name`` says they are called, which may be left out; notes an error if it is no name."""
        text = self.get("name", "").strip()
        try:
            return clean_name(text) if text else ""
        except InvalidRequest as error:
            self.fail("name", error.message)
            return ""

    def choice(self, name: str, options: Collection[str], label: str) -> str:
        """One of the options; notes an error if something else was sent."""
        value = self.get(name, "")
        if value not in options:
            self.fail(name, f"Choose {label}.")
        return value

    def tokens(self, name: str, most: int, *, required: bool = True) -> int | None:
        """A number of tokens, which may be grouped, as 50,000; None, with an error noted unless it may be missing."""
        text = " ".join(self.get(name, "").split())
        if not text and not required:
            return None
        number = int(re.sub("[,. ]", "", text)) if _WHOLE_NUMBER.fullmatch(text) else None
        if number is None:
            or_none = "" if required else ", or leave it empty"
            self.fail(name, f"Enter a whole number of tokens, such as 50,000{or_none}.")
        elif number > most:
            self.fail(name, f"Enter at most {most:,} tokens.")
        return number

    def fail(self, name: str, sentence: str) -> None:
        """Note what is wrong with a field (``""``: with the whole form); the first sentence of a field stays."""
        self.errors.setdefault(name, sentence)


async def read(request: Request, *, anywhere: bool = False) -> Form:
    """The form in a request's body.

    Raises ``Forbidden`` if it was not sent by a page of ours in this browser, ``InvalidRequest`` if it is no form,
    ``RequestTooLarge`` past 256 KiB; and ``Conflict`` if it was opened in another workspace than the active one, unless
    it means the same ``anywhere``.
    """
    session.check_origin(request)
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/x-www-form-urlencoded":
        raise InvalidRequest("Send this as an HTML form (application/x-www-form-urlencoded).")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_FORM:
            raise RequestTooLarge
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise InvalidRequest from error
    form = Form(fields)
    opened_in = session.check_csrf(request, form.get("csrf", "") or request.headers.get("x-csrf-token", ""))
    if not anywhere:
        await session.check_place(request, opened_in)
    return form
