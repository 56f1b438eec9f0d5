"""What ``ownkey demo`` prints: where it is, who can sign in, and what to try."""

from __future__ import annotations

from ownkey.demo.seed import MONTHLY_TOKENS, ORGANIZATION, Seeded

_GUIDE = """
{line}
  {organization} is running:  {url}
{line}

  The whole product, with a simulated AI provider on this machine: no account,
  no key and no network needed. Nothing is kept. Ctrl-C stops it.

SIGN IN
{people}

CALL IT FROM A PROGRAM
  API token  {api_token}

  curl {url}/openai/v1/chat/completions \\
    -H 'Authorization: Bearer {api_token}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "gpt-4o-mini", "messages":
         [{{"role": "user", "content": "Tell me about tea in 2000 words"}}]}}'

  Official SDKs take the same token as their API key, and as base URL
    OpenAI         {url}/openai/v1
    Anthropic      {url}/anthropic
    Google Gen AI  {url}/gemini

TRY THIS
  1. Sign in as the user and ask the assistant something. It works: {organization}
     has {tokens:,} tokens a month on Free. See them go under Settings → Usage.
  2. Spend them: run the curl line about ten times, until it answers 429
     allowance_exhausted. The assistant has stopped, too, and says until when.
  3. Sign in as the admin. Settings → Integrations → OpenAI → Add API Key, paste
       sk-demo-acme-first-key
     and Save. The badge says Active. Run the curl line again: it goes on, paid
     by {organization}'s own key, and the allowance is left alone.
  4. Update API Key, with sk-demo-acme-second-key: the next call uses it.
     With sk-demo-acme-nocredit calls are refused, and say whose key it was.
     With a key that begins otherwise, Save is refused in the provider's words.
  5. Remove: calls fall back to the allowance, which is still used up.

  Keys for the others begin with sk-ant-demo- (Anthropic), AIzaDemo (Gemini),
  gsk_demo (Groq), sk-or-demo- (OpenRouter), xai-demo- (xAI), demo- (Mistral).
"""


def guide(url: str, seeded: Seeded) -> str:
    """The text, at most 80 columns wide but for the lines with the token."""
    people = "\n".join(f"  {p.role.label:<10} {p.email:<22} {p.password}" for p in seeded.people)
    return _GUIDE.format(
        line="─" * 80,
        organization=ORGANIZATION,
        url=url,
        people=people,
        api_token=seeded.api_token,
        tokens=MONTHLY_TOKENS,
    )
