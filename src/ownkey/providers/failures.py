"""What a provider's refusal means: the key, the money, pressure, or something else. A table with tests.

The status alone does not tell: OpenAI says "no money" with 429, Anthropic with 400, 402 or 429; a bad Gemini key
is a 400; at Together a 403 is a prompt that is too long. So rows name provider, status, and the words or the
message that make the difference; the first that fits wins, and what no row names is read by its status.

Providers quote what a request said, in a 400 above all, and that must not pass for their own words: so a row for a 400
says how the message begins, where that is known, or names a word that stands in a member of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from ownkey.providers.provider import Provider


class Failure(StrEnum):
    """Why a provider refused, as far as it concerns the key and its account."""

    KEY_REJECTED = "key_rejected"
    """The credential is wrong, revoked or of the wrong kind."""
    NO_MONEY = "no_money"
    """The account has no credit, or a spend limit is reached: nothing changes by trying again."""
    PRESSURE = "pressure"
    """Rate limited or overloaded: trying again later helps."""
    LIMITED = "limited"
    """The key is real but may not do this."""
    OUTAGE = "outage"
    """The provider itself is failing."""
    BAD_REQUEST = "bad_request"
    """The request is at fault, not the key."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. An empty field fits everything.

    ``words`` are compared with the error's type, code, status, reason and the like, in lower case;
    ``says`` is searched in each of its messages.
    """

    failure: Failure
    providers: frozenset[str] = frozenset()
    statuses: frozenset[int] = frozenset()
    words: frozenset[str] = frozenset()
    says: re.Pattern[str] | None = field(default=None)

    def fits(self, provider: str, status: int, words: frozenset[str], messages: Sequence[str]) -> bool:
        """Whether every field of the row agrees."""
        return (
            (not self.providers or provider in self.providers)
            and (not self.statuses or status in self.statuses)
            and (not self.words or not self.words.isdisjoint(words))
            and (self.says is None or any(self.says.search(message) for message in messages))
        )


def _row(
    failure: Failure, providers: str = "", statuses: tuple[int, ...] = (), words: str = "", says: str | None = None
) -> Row:
    pattern = re.compile(says, re.IGNORECASE) if says else None
    return Row(failure, frozenset(providers.split()), frozenset(statuses), frozenset(words.split()), pattern)


TABLE: tuple[Row, ...] = (
    # OpenAI and those who copy its words
    _row(Failure.BAD_REQUEST, "openai", (401,), "mismatched_organization invalid_organization mismatched_project"),
    # A restricted key that lacks a right: it is a good one.
    _row(Failure.LIMITED, "openai", (401,), says=r"^You have insufficient permissions|Missing scopes:"),
    # Qwen says "insufficient_quota" of a rate, and "Arrearage" of money.
    _row(
        Failure.PRESSURE,
        "qwen",
        (429,),
        "insufficient_quota throttling throttling.ratequota throttling.allocationquota",
    ),
    _row(Failure.NO_MONEY, "qwen", (400, 403), "arrearage allocationquota.freetieronly"),
    _row(Failure.LIMITED, "qwen", (400, 403), "accessdenied.unpurchased model.accessdenied"),
    _row(
        Failure.NO_MONEY,
        statuses=(400, 401, 402, 403, 429),
        words="insufficient_quota credit_balance_exhausted billing_hard_limit_reached billing_not_active "
        "exceeded_current_quota_error insufficient_balance",
    ),
    _row(Failure.PRESSURE, "openai", (500, 502, 503), "server_is_overloaded slow_down"),
    # Anthropic
    _row(
        Failure.NO_MONEY,
        "anthropic",
        (400, 403, 429),
        says=r"^Your credit balance is too low|^You have reached your specified API usage limits",
    ),
    _row(Failure.NO_MONEY, statuses=(400, 402, 403, 429), words="enforced_spend_limit_reached billing_error"),
    # Azure: a wrong key and a wrong resource read the same; a quota of the free tier comes back by itself.
    _row(Failure.LIMITED, "azure", (401, 403), says=r"lacks the required|virtual network|firewall|private endpoint"),
    _row(Failure.PRESSURE, "azure", (403,), says=r"call volume quota"),
    _row(Failure.NO_MONEY, "azure", (401, 403), says=r"subscription (is|was|has been) (disabled|suspended)"),
    _row(Failure.PRESSURE, "azure", (400, 408, 503), "nocapacity timeout"),
    # Bedrock: nearly everything about a key is a 403, told apart by the sentence; the exception is in a header.
    _row(Failure.BAD_REQUEST, "bedrock", (400,), says=r"^malformed input request"),
    _row(
        Failure.KEY_REJECTED,
        "bedrock",
        (400, 401, 403),
        "unrecognizedclientexception invalidclienttokenid expiredtokenexception invalidsignatureexception "
        "missingauthenticationtokenexception incompletesignatureexception",
    ),
    _row(
        Failure.KEY_REJECTED,
        "bedrock",
        (401, 403),
        says=r"security token .{0,200}(invalid|expired)|token has expired|API key is (not valid|invalid|expired)"
        r"|authentication failed|missing authentication|invalid (api key|bearer)|request signature",
    ),
    _row(Failure.NO_MONEY, "bedrock", (400, 403), says=r"payment instrument|payment method|account.{0,200}suspended"),
    _row(Failure.LIMITED, "bedrock", (401,), says=r"not available|access to (the|this) model"),
    _row(Failure.LIMITED, "bedrock", (400,), says=r"operation not allowed|not authorized|access.{0,200}denied"),
    _row(Failure.NO_MONEY, "bedrock", (400,), "servicequotaexceededexception"),
    _row(Failure.NO_MONEY, "bedrock", (400,), says=r"service quota|account.{0,200}quota"),
    _row(Failure.PRESSURE, "bedrock", (400, 503), "throttlingexception modelnotreadyexception serviceunavailable"),
    _row(Failure.PRESSURE, "bedrock", (400, 503), says=r"too many (requests|tokens)|try your request again"),
    _row(Failure.OUTAGE, "bedrock", (408, 424)),
    # Vertex AI: the account of the key, and of the project it bills.
    _row(Failure.NO_MONEY, "vertex", (400, 403, 429), "billing_disabled"),
    _row(Failure.NO_MONEY, "vertex", (403, 429), says=r"billing (to be enabled|account .{0,200}(closed|disabled))"),
    _row(Failure.KEY_REJECTED, "vertex", (400, 401), "invalid_grant invalid_client unauthorized_client"),
    _row(Failure.KEY_REJECTED, "vertex", (403,), "account_disabled service_account_disabled"),
    _row(Failure.LIMITED, "vertex", (400, 403), "service_disabled consumer_invalid iam_permission_denied"),
    # Gemini
    _row(Failure.KEY_REJECTED, "gemini", (400,), "api_key_invalid"),
    _row(Failure.KEY_REJECTED, "gemini", (400,), says=r"^API key (not valid|expired|not found)"),
    _row(Failure.KEY_REJECTED, "gemini", (403,), says=r"reported as leaked"),
    _row(Failure.NO_MONEY, "gemini", (400, 403, 429), "payment_required"),
    _row(Failure.NO_MONEY, "gemini", (429,), says=r"prepayment credits|spend(ing)? (cap|limit)|credits are depleted"),
    _row(Failure.LIMITED, "gemini", (400,), says=r"^User location is not supported|^Gemini API free tier"),
    # OpenRouter: a 402 for a budget that running requests hold is over in a moment; a 403 may be moderation.
    _row(Failure.PRESSURE, "openrouter", (402,), "in_flight_budget_exhausted"),
    _row(Failure.NO_MONEY, "openrouter", (403,), says=r"limit exceeded|budget|insufficient credits"),
    _row(Failure.BAD_REQUEST, "openrouter", (403,), says=r"moderation|flagged"),
    # xAI
    _row(Failure.KEY_REJECTED, "xai", (400,), says=r"^(incorrect|invalid) API key"),
    _row(Failure.NO_MONEY, "xai", (403, 429), says=r"any credits|available credits|spending limit"),
    # Z.ai: a number says it. 1113 no balance; 1308, 1310 a limit of the plan; 1309 the plan has ended; 13xx rates.
    _row(Failure.KEY_REJECTED, "zai", (400, 401, 403, 429), "1000 1001 1002 1003 1004"),
    _row(Failure.NO_MONEY, "zai", (400, 401, 403, 429), "1110 1112 1113 1309"),
    _row(Failure.LIMITED, "zai", (400, 401, 403, 429), "1111 1121 1220 1311 1313"),
    _row(Failure.PRESSURE, "zai", (400, 429), "1302 1303 1304 1305 1308 1310 1312"),
    _row(Failure.BAD_REQUEST, "zai", (400, 429), "1301"),
    # Cohere: a trial key's month is money, its minute is not.
    _row(Failure.NO_MONEY, "cohere", (429,), says=r"calls? ?/ ?month|per month"),
    _row(Failure.KEY_REJECTED, "cohere", (403,), says=r"invalid api token"),
    # Hugging Face: a model that is being loaded.
    _row(Failure.PRESSURE, "huggingface", (503,), says=r"loading"),
    _row(Failure.LIMITED, "huggingface", (401, 403), says=r"sufficient permissions|gated|access to (this )?model"),
    _row(Failure.NO_MONEY, "huggingface", (403, 429), says=r"included credits|monthly .{0,200}credits"),
    # Ollama: as busy as one machine is.
    _row(Failure.PRESSURE, "ollama", (503,), says=r"busy|pending requests"),
    # Others
    _row(Failure.BAD_REQUEST, "together", (403,)),
    _row(Failure.KEY_REJECTED, "nvidia", (403,), says=r"authorization failed"),
    _row(Failure.NO_MONEY, "fireworks", (412,), says=r"spending limit|suspended|billing"),
    _row(Failure.LIMITED, "groq", (400,), "organization_restricted"),
    _row(Failure.NO_MONEY, "groq", (400,), "blocked_api_access"),
    # Anyone, by message
    _row(Failure.LIMITED, statuses=(403,), words="model_not_found"),  # names the model that was asked for
    _row(
        Failure.NO_MONEY,
        statuses=(403, 429),
        says=r"insufficient (account )?(balance|credits?|funds)|(spend|spending|budget) limit (reached|exceeded)"
        r"|(out of|no remaining) credits",
    ),
    _row(Failure.PRESSURE, statuses=(503,), says=r"overloaded|high demand|too busy"),
    _row(Failure.PRESSURE, statuses=(500, 502, 503, 529), words="overloaded_error"),
)

BY_STATUS = {
    401: Failure.KEY_REJECTED,
    402: Failure.NO_MONEY,
    403: Failure.LIMITED,
    429: Failure.PRESSURE,
    529: Failure.PRESSURE,
}

# Members whose value is a word of the provider's vocabulary, wherever in the error they stand.
_WORD_MEMBERS = frozenset({"type", "__type", "code", "status", "reason", "error_code", "limit_source", "error"})
_MESSAGE_MEMBERS = frozenset({"message", "Message", "detail", "error", "error_description", "raw", "msg"})
# Where what was sent is repeated: what stands in it is the caller's.
_ECHO_MEMBERS = frozenset({"input"})
# The same in the text of a body that broke off and is no JSON: which of its words came still counts.
_WORDS_SAID = re.compile('"(?:' + "|".join(sorted(_WORD_MEMBERS)) + r')"\s*:\s*"([^"\\]{1,80})"')
_MESSAGES_SAID = re.compile('"(?:' + "|".join(sorted(_MESSAGE_MEMBERS)) + r')"\s*:\s*"((?:[^"\\]|\\.){1,2000})')
_DEEPEST = 6
_MOST_BYTES = 65_536
_LONGEST_MESSAGE = 2_000
_MOST_MESSAGES = 20


def _members(value: object, depth: int = 0) -> Iterator[tuple[str, str]]:
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        for name, member in value.items():
            if isinstance(member, str):
                yield name, member
            elif name not in _ECHO_MEMBERS:
                yield from _members(member, depth + 1)
    elif isinstance(value, list):
        for member in value[:50]:
            yield from _members(member, depth + 1)


def classify(provider: Provider, status: int, body: bytes) -> Failure | None:
    """What a reply with this status and body means for the key; None for a status below 400.

    Of a body that is not JSON, such as half of it, the first 64 KiB are searched for the same members; of one that has
    none of them, such as plain text, the beginning is the message.
    """
    if status < 400:
        return None
    try:
        members = list(_members(msgspec.json.decode(body)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[:_MOST_BYTES].decode("utf-8", "replace")
        found = _WORDS_SAID.findall(text)
        messages = _MESSAGES_SAID.findall(text) or [text]
    else:
        found = [text for name, text in members if name in _WORD_MEMBERS and len(text) <= 80]
        messages = [text for name, text in members if name in _MESSAGE_MEMBERS]
    messages = [message[:_LONGEST_MESSAGE] for message in messages[:_MOST_MESSAGES]]
    # AWS writes an exception with its namespace before it: com.amazon.coral.service#ThrottlingException.
    words = frozenset(text.lower().rpartition("#")[2] for text in found)
    for row in TABLE:
        if row.fits(provider.slug, status, words, messages):
            return row.failure
    if status >= 500:
        return BY_STATUS.get(status, Failure.OUTAGE)
    return BY_STATUS.get(status, Failure.BAD_REQUEST)


def message_of(body: bytes) -> str:
    """The sentence for people in a provider's error body, at most 300 characters; empty if there is none."""
    try:
        members = dict(reversed(list(_members(msgspec.json.decode(body[:_MOST_BYTES])))))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    names = ("message", "Message", "detail", "error_description", "error", "msg")
    text = next((members[name] for name in names if name in members), "")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text[:3_000]).split())[:300]
