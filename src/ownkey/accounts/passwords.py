"""Passwords: which ones are good enough, and how they are kept (argon2id).

The policy is NIST SP 800-63B-4's: at least 15 characters, every character allowed, nothing cut off, no rules of
composition; words that somebody who knows the person would try first are refused.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ownkey.accounts.common_passwords import COMMON_PASSWORDS, KEYBOARD_RUNS
from ownkey.errors import InvalidRequest

SHORTEST, LONGEST = 15, 200
# A context word shorter than this is in too many good passwords by chance.
_SHORTEST_WORD = 4
_FEWEST_DIFFERENT_CHARACTERS = 5

# RFC 9106, second recommended option, on one lane: about a tenth of a second and 64 MiB each.
# Tests replace it by a cheap one.
hasher = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)

# Threads of their own: hashing neither stops the event loop nor takes more memory than two hashes at a time.
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="argon2")


def check(text: str, *, context: Iterable[str] = ()) -> None:
    """Raise ``InvalidRequest``, saying why, unless ``text`` is good enough for a password.

    ``context`` holds what is known about the person and the service: e-mail address, name, the application's name.
    """
    password = _normal(text)
    if len(password) < SHORTEST:
        raise InvalidRequest(f"Use at least {SHORTEST} characters. A few words in a row are easy to remember.")
    if len(password) > LONGEST:
        raise InvalidRequest(f"Use at most {LONGEST} characters.")
    folded = password.casefold()
    if _is_common(folded):
        raise InvalidRequest("This password is among the first that are guessed. Choose another.")
    for word in _words(context):
        if word in folded:
            raise InvalidRequest(f"Leave “{word}” out: it is the first thing somebody would try.")


async def hash_password(text: str) -> str:
    """The argon2id hash to keep."""
    return await asyncio.get_running_loop().run_in_executor(_threads, hasher.hash, _encoded(text))


async def verify(kept: str | None, text: str) -> bool:
    """Whether ``text`` is the password. With None, for an unknown user, it works as long and says no."""
    matches = await asyncio.get_running_loop().run_in_executor(_threads, _matches, kept, _encoded(text))
    return matches and kept is not None


def is_outdated(kept: str) -> bool:
    """Whether a hash was made with other parameters than today's, and should be made anew at the next sign-in."""
    return hasher.check_needs_rehash(kept)


def _matches(kept: str | None, password: bytes) -> bool:
    try:
        return hasher.verify(kept or _nobodys_hash(hasher), password)
    except (VerificationError, InvalidHashError):
        return False


@lru_cache(maxsize=2)
def _nobodys_hash(made_by: PasswordHasher) -> str:
    return made_by.hash("the password of somebody who does not exist")


def _normal(text: str) -> str:
    # The same password typed on two systems can arrive as different code points.
    return unicodedata.normalize("NFKC", text)


def _encoded(text: str) -> bytes:
    return _normal(text).encode("utf-8", "surrogatepass")


def _is_common(folded: str) -> bool:
    """Whether a password is a common one, perhaps with digits behind, a piece over and over, or a run of keys."""
    letters = re.sub(r"[\s._-]", "", folded)
    return (
        letters.rstrip("0123456789!") in COMMON_PASSWORDS
        or letters in COMMON_PASSWORDS
        or len(set(folded)) < _FEWEST_DIFFERENT_CHARACTERS
        or any(_repeats(letters, size) for size in range(1, len(letters) // 2 + 1))
        or any(letters in run or letters in run[::-1] for run in KEYBOARD_RUNS)
    )


def _repeats(text: str, size: int) -> bool:
    return text == (text[:size] * len(text))[: len(text)]


def _words(context: Iterable[str]) -> set[str]:
    folded = [_normal(text).casefold() for text in context]
    # An address says its parts, not only itself; so does a name.
    return {word for text in folded for word in re.split(r"[\s@._+-]+", text) if len(word) >= _SHORTEST_WORD}
