"""Write the reference pages in ``docs/`` from the code they describe; ``--check`` only says which are out of date.

A test compares them, so a setting, command, error, action, provider or route without its line fails the build.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args, get_origin

from cyclopts import App
from cyclopts.argument import Argument
from pydantic import SecretStr

from ownkey import errors
from ownkey.access import LOWEST_ROLE
from ownkey.accounts.api_tokens import SCOPES
from ownkey.api.urls import PREFIX, ROUTES
from ownkey.cli.main import app
from ownkey.errors import OwnkeyError
from ownkey.gateway.ceilings import HOSTED_TOKENS
from ownkey.gateway.dialects.error_shapes import ERROR_WORDS
from ownkey.gateway.estimates import AUDIO_TOKENS_PER_SECOND, BYTES_PER_TOKEN, IMAGE_READ, IMAGE_WRITTEN, KEPT_READ
from ownkey.gateway.media import MOST_PARTS as MOST_MEDIA_PARTS
from ownkey.gateway.model_limits import UNKNOWN
from ownkey.gateway.multipart_fields import MOST_PARTS as MOST_FORM_PARTS
from ownkey.gateway.request_fields import MOST_VALUES
from ownkey.plans import DEFAULT_CATALOGUE, Plan
from ownkey.providers.provider import Provider
from ownkey.providers.registry import PROVIDERS
from ownkey.settings import SECRETS_DIR_VARIABLE, Settings

FOLDER = Path(__file__).parent.parent / "docs"
_MADE = "<!-- Written by scripts/docs.py from the code: change that, then run it. -->"


def configuration() -> str:
    """Every setting, from ``settings.py``."""
    return f"""{_MADE}
# Settings

Each setting is an environment variable. Without it, the line in `.env` in the working directory counts; without
that, a file of the setting's name in the folder that `{SECRETS_DIR_VARIABLE}` names (as container secrets are
mounted); without that, the default. `ownkey settings` prints what is in force and where it comes from, secrets
masked. A wrong value stops the program at its start and is named.

{_table(("name", "default", "meaning"), _settings())}

`<PROVIDER>` is the provider's slug in capitals, such as `OPENAI`; see [providers](providers.md).

## Providers of your own

`OWNKEY_BASE_URL_<NAME>` with a name that no [provider](providers.md) has adds one: with
`OWNKEY_BASE_URL_VLLM=http://10.0.0.5:8000` programs use `{{public}}/vllm/v1`. It speaks OpenAI's API, may be private
and plain HTTP, and has a section on Settings → Integrations; with `OWNKEY_PLATFORM_KEY_VLLM` it runs on the allowance.
`OWNKEY_PROVIDERS_FILE` says more about it:

```toml
[providers.acme-llm]              # the gateway's path: /acme-llm/v1/…
address = "https://llm.acme.example"
name = "Acme LLM"                 # everything below may be left out
api_root = "/v1"                  # what comes before /chat/completions
check = "/v1/models"              # asked about a new key; spends no tokens
console_url = "https://acme.example/keys"
header = "authorization"          # how the credential is sent
prefix = "Bearer "
key_optional = false              # true: it may be used without a key, and OWNKEY_PLATFORM_KEY_ACME_LLM=none
own_keys = true                   # false: organizations bring no keys; it has no section on Integrations
assistant_model = "acme-large"    # lets the assistant use it
capabilities = ["text"]           # the kinds: text, images, embeddings, audio
asks_for_usage = true             # a stream reports its usage only with stream_options.include_usage
chat_limit = "max_tokens"         # or max_completion_tokens
```

## Hosts that organizations may name

Beside a key for a provider whose host is the customer's, an organization names hosts below the provider's own domains.
`OWNKEY_ALLOWED_HOSTS` allows others, separated by commas:

| entry | allows |
| --- | --- |
| `llm.acme.example` | this host, also when it leads into a private network |
| `*.acme.example` | every host below, also when they lead into a private network |
| `10.1.0.0/16`, `10.1.2.3` | these IP addresses, by number or as what an allowed name leads to |
| `*` | every host of the public internet |

Loopback, private, link-local and reserved addresses are refused otherwise, when a key is saved and at each connection.
What is for a machine itself, such as a cloud's metadata service, is reached through a block that holds it only. Your
own `OWNKEY_BASE_URL_<PROVIDER>` is not judged.

## Plans

Without `OWNKEY_PLANS_FILE` there are these plans:

{_table(("plan", "tokens a month", "workspaces", "members", "API", "a month", "a year", "extra seat"), _plans())}

The file replaces all of them. It has one table for each plan, cheapest first:

```toml
[plans.free]
name = "Free"
monthly_tokens = 100_000          # shared by the whole organization, each calendar month (UTC)
workspaces = 1                    # leave out: unlimited
included_members = 1              # more are extra seats; leave out: unlimited
api_access = false                # whether API tokens work

[plans.team]
name = "Team"
monthly_tokens = 2_000_000
api_access = true
monthly_requests_per_token = 100_000
month_price_cents = 2_900
year_price_cents = 29_000
seat_price_cents = 500
currency = "USD"

[plans.team.weights]              # how much a token of a kind counts; each is 1 unless stated
cached_input = 0.1                # the kinds: input, cached_input, cache_write, output

[plans.team.weights."gpt-5*"]     # the same for a model, or for all whose names fit; * stands for anything
output = 4
```

What a call holds is counted with the weights as well, so that it covers all the call can be charged. A model's own
name goes before a pattern, a longer pattern before a shorter one; kinds that a model's table leaves out count as for
every model. Own keys are not concerned.

A plan that is taken out of the file includes nothing any more. The AI requests of organizations that are still on it
are refused until they have another one, which the owner chooses under *Settings → Billing*, or you with
`ownkey plans set`; at the start the log names such plans.

## Key encryption keys

A key is 32 random bytes in base64; `ownkey vault new-key` prints one. The first seals, all open. On the embedded
database, without either setting, the first start makes the file `vault-keys` in the data directory, says so, and
never makes another one beside stored keys. On PostgreSQL one must be given, the same on every node. To rotate, put
a new key in front, restart, run `ownkey vault rotate`, and take the old one out when nothing failed.

**Keep a copy apart from the database's backups.** Without it stored provider keys cannot be opened by anyone, and
each organization has to connect its keys again.
"""


def roles() -> str:
    """Who may do what, from ``access.LOWEST_ROLE``."""
    rows = [(f"`{action.value}`", role.label if role else "the operator only") for action, role in LOWEST_ROLE.items()]
    return f"""{_MADE}
# Who may do what

Roles rank user, developer, admin, owner; each may do what those below may. A role is held in a workspace; the owner
is the organization's, one person, above all its workspaces. The operator, at the command line of the machine, may do
everything and is recorded like anyone. Each action is also the word that the audit log has for it.

{_table(("action", "from role"), rows)}

Besides: nobody changes their own role, and owner is not a role to give. With `OWNKEY_KEYS_MANAGED_BY=owner` the
`provider_key` actions are the owner's alone. An API token acts with the role that whoever made it has at that
moment, as far as its scopes reach; below developer it rests. One that the operator made acts as an admin, so it cannot
have the scope `billing.manage`.
"""


def error_codes() -> str:
    """Every error a caller can see, from ``errors.py`` and the dialects' words for them."""
    return f"""{_MADE}
# Errors

`code` is the stable name: programs should look at it, not at the sentence. The gateway answers in the shape of the
provider's own API, so that an official SDK raises its own exception; everywhere else an error is a problem document
(`application/problem+json`, RFC 9457) with `code`, or a page for a person. The table has each provider's own
word: OpenAI's and Anthropic's `type`, Gemini's `status`, AWS's exception.

{_table(("code", "status", "OpenAI", "Anthropic", "Gemini", "AWS", "sentence"), _errors())}

Shapes, with the same `code` in each:

- OpenAI: `{{"error": {{"message", "type", "param", "code"}}}}`
- Anthropic: `{{"type": "error", "error": {{"type", "message", "code"}}, "request_id"}}`
- Gemini: `{{"error": {{"code", "message", "status", "details": [{{"reason": code}}]}}}}`
- Bedrock: `{{"message", "code", "__type"}}`, the exception also in the header `x-amzn-errortype`
- Cohere's own paths: `{{"message", "code"}}`; Ollama's own: `{{"error": message, "code"}}`

Three that are never confused: `not_authenticated` is the caller's token, `allowance_exhausted` the organization's
tokens of the month (with `Retry-After` and `x-should-retry: false`, because trying again this month is hopeless),
`provider_key_rejected` the organization's own key at its provider. A provider's own errors pass through with status
and body, the key taken out; only a refused key of the organization becomes `provider_key_rejected`, and a refused key
of the operator `provider_failed`. After the first byte of a reply an error is an event of the dialect, and the stream
ends without its mark of a good end.
"""


def commands() -> str:
    """The command line, from the commands themselves."""
    return f"""{_MADE}
# Commands

They act on the database that the [settings](configuration.md) name, also while it is being served, and bring an empty
embedded one into being. They are recorded in the audit log as the operator's. `ORG` is an id or a slug. With `--json`
they print exactly one JSON document, but for `usage events`, which prints a line of JSON for each event. They exit 0
when done, 1 when refused, with one sentence on standard error, and 2 when they were not understood.

{"".join(_command_sections(app, "ownkey", 2)).rstrip()}
"""


def providers() -> str:
    """What can be reached, from ``providers/registry.py``."""
    rows = [
        (
            p.name,
            f"`{p.slug}`",
            f"`{{public}}/{p.slug}{p.sdk_path}`",
            _stands_for(p),
            {"openai": "OpenAI", "anthropic": "Anthropic", "gemini": "Gemini", "bedrock": "Bedrock"}[p.dialect],
            ", ".join(capability.value for capability in p.capabilities),
            f"[console]({p.console_url})" if p.console_url else "–",
        )
        for p in PROVIDERS.values()
    ]
    header = ("provider", "slug", "base URL for an SDK", "stands for", "dialect", "makes", "keys come from")
    return f"""{_MADE}
# Providers

`{{public}}/<slug>` stands for the provider's `https://host`, and everything after it is the provider's own path. So
the base URL is the only thing that a program changes; its API token goes where the SDK sends its key.

{_table(header, rows)}

An organization can connect a key of its own for each of them. On the allowance run those for which the operator has
set `OWNKEY_PLATFORM_KEY_<PROVIDER>`. Adding a provider is adding a row to `providers/registry.py`; an OpenAI-compatible
address of one's own is added by a [setting](configuration.md#providers-of-your-own).

## More than one format

Every path of a provider is reachable, also where it speaks another format than the table says:

- **Azure OpenAI**: `/openai/v1/…`, deployments (`/openai/deployments/<name>/…?api-version=…`), and Claude at
  `/anthropic/v1/messages`. Versions before 2024-09-01 cannot be asked for a stream's usage: it is estimated.
- **Amazon Bedrock**: Converse and Invoke, plain and streamed, with an API key (`AWS_BEARER_TOKEN_BEDROCK` is the API
  token, and the SDK's endpoint `{{public}}/bedrock`); and its OpenAI- and Anthropic-compatible endpoints. Requests
  signed with AWS's own signature are not: what signs them is not a key that can be replaced.
- **Google Vertex AI**: Gemini, and the models of Anthropic, Mistral and others (`:rawPredict`, `:streamRawPredict`),
  with project and location in the path.
- **Cohere** and **Ollama**: their own `/v2/chat` and `/api/chat` beside the OpenAI-compatible ones.
- **DeepSeek, Moonshot, OpenRouter, xAI, Z.ai**: Anthropic's `/v1/messages` where they have it.

## What is counted

Input plus output, as the provider reports them: cached and cache-write input is part of the input, reasoning part of
the output, an explicit zero is a zero, and where a reported total is more than its parts the total is charged. What a
provider does within a call and reports apart counts, too: at Anthropic the summary of a conversation that grew too
long, and the advice of another model; at OpenAI the pictures that a tool of Responses drew; at Perplexity what deep
research read and thought. What is not reported in tokens:

- **Nothing reported** (a stream that was cut, a provider that says nothing): {BYTES_PER_TOKEN} bytes of text make a
  token; an image read is {IMAGE_READ:,} tokens, one generated {IMAGE_WRITTEN:,}, a kilobyte of sound one. Of a document
  from a path that nobody has told us of, all counts. The event is marked `estimated`.
- **Seconds of sound** (a transcription billed by duration): {AUDIO_TOKENS_PER_SECOND} tokens a second, begun seconds in
  full, because the same models read one token in a tenth of a second where they report tokens. Where a provider reports
  both, its tokens count.
- **Searches** (a rerank): the text that was searched, as an estimate.
- **What a request only names** (a file, an earlier response), where nothing is reported: {KEPT_READ:,} tokens.
- **Cohere**: `billed_units`, which leave out its own instructions.
- **Amazon Bedrock's Invoke**: the counts in the headers of the reply, or in the last chunk of a stream.

Work whose cost is not in its reply (batches, fine-tuning, videos, background replies) and what is kept in the account
need an own key, and so does a path that Ownkey does not know. Token counts and lists of models are free. Google's
parameters that leave the usage out of a reply (`fields`, `alt=proto`) are refused.

## What is held

While a call on the allowance runs, as many tokens are held as it can use at most; what it did not use is free again
when it ends. So a request that names much in few bytes needs room on the allowance:

- **Text**: one token a byte. **Images** have a figure that no model of the same name goes beyond. An Azure deployment
  should be named after its model, or begin with its name, because limits and figures go by that.
- **What is only named** (a file or a video at an address or by its id, an earlier response or conversation, a cache, a
  stored prompt or agent): as much as the model can read, all of it together; for a model that we do not know
  {UNKNOWN.reads:,} tokens. Content that stands in the request needs less.
- **Tools that the provider runs**, searches among them: {HOSTED_TOKENS:,} tokens, and the request once more.
- **The answer**: the caller's limit, or what the model can write; without a limit, at most a quarter of what is left.

## What a request may hold

A body of up to `OWNKEY_MAX_REQUEST_BYTES` ([settings](configuration.md)) may have {MOST_VALUES:,} JSON values and
{MOST_MEDIA_PARTS:,} messages and parts of messages, a form {MOST_FORM_PARTS:,} parts. More is refused with
`invalid_request`, which names the limit: a body is read before anybody else is served.

## Hosts that belong to the customer

Where the table names a resource, a region or an address in place of a host, the organization gives it beside the key:
on Settings → Integrations, as `address` in the management API, with `--address` at the command line. It is sealed with
the key, so changing it needs the key again. A short form becomes an address of the provider; so may an address in full
where the provider allows one, `https` only, on port 443 or from 1024 up, with a path prefix at most. Hosts outside the
provider's own domains, and private ones, need the operator's
[approval](configuration.md#hosts-that-organizations-may-name).

For a platform key the operator names the host with `OWNKEY_BASE_URL_<PROVIDER>`. An organization may then leave its
address empty, and its key goes there, too.

A key is sent to its own host only: redirects are not followed, proxies of the environment are ignored, and the name of
an organization's host is resolved anew for each connection, every result judged, and the connection made to one of
them, with the certificate checked for the name.

A service account's key (a JSON document) goes nowhere. It signs a request to Google's token service, and the access
token that comes back, good for an hour, goes to the provider.
"""


def _stands_for(provider: Provider) -> str:
    usual = f"`{provider.base_url}`" if provider.base_url else ""
    if provider.address is None:
        return usual
    template = provider.address.template.replace("{}", f"<{provider.address.label.lower()}>")
    shorts = [] if template else [f"`{url}`" for url in provider.address.exceptions.values()]
    forms = [
        usual,
        f"`{template}`" if template else "",
        *shorts,
        "an address of one's own" if provider.address.whole else "",
    ]
    return " or ".join(form for form in forms if form)


def management_api() -> str:
    """The routes under ``/api/v1``, from ``api/urls.py``."""
    rows = [
        (
            f"`{route.method} {route.path}`",
            f"`{route.scope}`" if route.scope else "any token",
            f"`{route.needs.value}`",
            (route.handler.__doc__ or "").splitlines()[0],
        )
        for route in ROUTES
    ]
    return f"""{_MADE}
# Management API

What the settings pages do, for programs. Paths are below `{PREFIX}`; the full description is the OpenAPI document at
`{PREFIX}/openapi.json`. A request carries an API token, `Authorization: Bearer ownkey_…`, whose scope reaches the
route and whose maker may do the action (see [roles](roles.md)): what a role may not do on a page it may not do here.

{_table(("route", "scope", "action", "does"), rows)}

Bodies are JSON, of up to 1 MiB. A member of a body, or a query parameter, that a route does not have is refused. Lists
are `{{"items": […], "next": …}}`; where `next` is not null, ask on with it as the route's `since` or `before`. Errors
are problem documents, see [errors](errors.md). API tokens are made by people, under Settings → Developer, and by the
operator: no token makes another.

## Scopes

{_table(("scope", "allows"), [(f"`{name}`", sentence) for name, sentence in SCOPES.items()])}
"""


DOCUMENTS: Mapping[str, Callable[[], str]] = {
    "configuration.md": configuration,
    "roles.md": roles,
    "errors.md": error_codes,
    "commands.md": commands,
    "providers.md": providers,
    "management-api.md": management_api,
}


def outdated() -> Sequence[str]:
    """The documents that are not what the code says."""
    return [
        name
        for name, write in DOCUMENTS.items()
        if not (FOLDER / name).exists() or (FOLDER / name).read_text() != write()
    ]


def _command_sections(group: App, path: str, level: int) -> Iterator[str]:
    for name in group:
        command = group[name]
        if name.startswith("-"):
            continue
        yield f"{'#' * level} {path} {name}\n\n"
        if command.default_command is None:
            yield f"{command.help}\n\n"
        else:
            yield _command(command, f"{path} {name}")
        yield from _command_sections(command, f"{path} {name}", level + 1)


def _command(command: App, path: str) -> str:
    arguments = [argument for argument in command.assemble_argument_collection() if argument.show]
    described = [argument for argument in arguments if argument.name != "--json"]
    usage = " ".join([path, *map(_usage, arguments)])
    lines = [f"* `{argument.name}`: {argument.parameter.help}{_default(argument)}\n" for argument in described]
    text = inspect.cleandoc(command.default_command.__doc__ or "")
    return f"```console\n{usage}\n```\n\n{text}\n\n{''.join(lines)}{chr(10) if lines else ''}"


def _usage(argument: Argument) -> str:
    if not argument.name.startswith("-"):
        return argument.name
    choices = argument.get_choices()
    value = "" if argument.hint is bool else f" {'|'.join(choices) if choices else argument.name[2:].upper()}"
    return f"{argument.name}{value}" if argument.required else f"[{argument.name}{value}]"


def _default(argument: Argument) -> str:
    default = argument.field_info.default
    if argument.required or default in (None, "") or isinstance(default, bool):
        return ""
    return f" Default `{' '.join(default) if isinstance(default, tuple) else default}`."


def _settings() -> Iterator[tuple[str, str, str]]:
    for field, info in Settings.model_fields.items():
        name = {"platform_keys": "PLATFORM_KEY_<PROVIDER>", "base_urls": "BASE_URL_<PROVIDER>"}.get(
            field, field.upper()
        )
        meaning = info.description or ""
        if get_origin(info.annotation) is Literal:
            meaning += f" One of {', '.join(f'`{choice}`' for choice in get_args(info.annotation))}."
        if SecretStr in (info.annotation, *get_args(info.annotation)) or field == "platform_keys":
            meaning += " *Secret.*"
        default = info.default if info.default not in (None, "", {}) else "–"
        yield f"`OWNKEY_{name}`", f"`{default}`" if default != "–" else "–", meaning
    yield f"`{SECRETS_DIR_VARIABLE}`", "–", "A folder with a file for each setting, named like it. Environment only."


def _plans() -> Iterator[Sequence[str]]:
    def price(plan: Plan, cents: int) -> str:
        return f"{cents / 100:,.0f} {plan.currency}" if cents else "–"

    for plan in DEFAULT_CATALOGUE.values():
        yield (
            f"`{plan.code}` {plan.name}",
            f"{plan.monthly_tokens:,}",
            str(plan.workspaces or "unlimited"),
            str(plan.included_members or "unlimited"),
            "yes" if plan.api_access else "no",
            price(plan, plan.month_price_cents),
            price(plan, plan.year_price_cents),
            price(plan, plan.seat_price_cents),
        )


def error_classes() -> Sequence[type[OwnkeyError]]:
    """Every class of ``errors.py`` that has a code of its own, by status."""
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OwnkeyError)]
    return sorted((kind for kind in found if kind is not OwnkeyError), key=lambda kind: (kind.status, kind.code))


def _errors() -> Iterator[Sequence[str]]:
    for kind in error_classes():
        words = ERROR_WORDS.get(kind.code)
        shown = [f"`{word}`" for word in words] if words else ["–"] * 4
        yield f"`{kind.code}`", str(kind.status), *shown, kind.sentence


def _table(header: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> int:
    """Write the documents, or with ``--check`` name those that are out of date."""
    wrong = outdated()
    if "--check" not in sys.argv:
        FOLDER.mkdir(exist_ok=True)
        for name in wrong:
            (FOLDER / name).write_text(DOCUMENTS[name]())
    for name in wrong:
        print(f"docs/{name}")
    return 1 if wrong and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
