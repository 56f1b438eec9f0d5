"""About how many tokens passed, for the replies whose provider does not say. Never exact, never nothing.

Four bytes of text make about one token; a stream usually has one token an event, or more. What is not text has a
figure of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from ownkey.gateway.media import Media
from ownkey.gateway.multipart_fields import Part

BYTES_PER_TOKEN = 4
AUDIO_TOKENS_PER_SECOND = 10
"""Sound whose provider says seconds and no tokens: the models of OpenAI's that say tokens read one each 100 ms
(https://platform.openai.com/docs/guides/realtime-costs), so a second costs the same, however it is billed."""
IMAGE_READ = 1_024
"""An image in a request."""
IMAGE_WRITTEN = 1_056
"""A generated image: a square one of OpenAI's in medium quality."""
BYTES_PER_AUDIO_TOKEN = 1_000
"""Speech, compressed: some 20 kB and 20 tokens a second."""
KEPT_READ = 16_384
"""Content that a request only names: a long conversation, or a document of some twenty pages."""
SOUND_ELSEWHERE = 3_000
"""Sound to transcribe that a form only names: five minutes of it, at ten tokens a second."""


def tokens_of_text(length: int) -> int:
    """Tokens of so many bytes of UTF-8 text, rounded up."""
    return -(-length // BYTES_PER_TOKEN)


def input_tokens(body: bytes, media: Media) -> int:
    """Tokens of a JSON request, at least 1: its text by its bytes, pictures and sounds by what they are."""
    length, tokens = len(body), 0
    for medium, inline in media:
        if medium == "image":
            length -= inline
            tokens += IMAGE_READ
        elif medium == "audio":
            length -= inline
            tokens += -(-inline // BYTES_PER_AUDIO_TOKEN)
        elif medium == "unseen":
            length -= inline
            tokens += KEPT_READ
    return max(tokens_of_text(length) + tokens, 1)


def form_tokens(form: Sequence[Part]) -> int:
    """Tokens of a multipart form, at least 1."""
    tokens = 0
    for part in form:
        if part.names_a_file:
            tokens += SOUND_ELSEWHERE
        elif not part.is_file:
            tokens += tokens_of_text(part.length)
        elif part.content_type.startswith("image/"):
            tokens += IMAGE_READ
        else:
            tokens += -(-part.length // BYTES_PER_AUDIO_TOKEN)
    return max(tokens, 1)
