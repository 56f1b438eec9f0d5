"""What the gateway counts, for Prometheus. No label carries a tenant, a key or a prompt."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

from ownkey.metering.usage import Usage

_requests = Counter("ownkey_requests", "Calls sent to a provider", ("provider", "billed_to", "outcome"))
_refusals = Counter("ownkey_refusals", "Calls refused before a provider was asked", ("provider", "code"))
_tokens = Counter("ownkey_tokens", "Tokens that providers reported", ("provider", "billed_to", "kind"))
_seconds = Histogram(
    "ownkey_request_seconds",
    "From reading a request to the end of its reply",
    ("provider",),
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
in_flight = Gauge("ownkey_requests_in_flight", "Calls under way in this process")

# Finding a labelled child costs more than counting with it.
_request = lru_cache(4096)(_requests.labels)
_refusal = lru_cache(4096)(_refusals.labels)
_token = lru_cache(4096)(_tokens.labels)
_duration = lru_cache(1024)(_seconds.labels)


class Metrics:
    """Counts exchanges."""

    def settled(self, provider: str, billed_to: str, outcome: str, usage: Usage, seconds: float) -> None:
        """A call that was sent has ended."""
        _request(provider, billed_to, outcome).inc()
        _token(provider, billed_to, "input").inc(usage.input_tokens)
        _token(provider, billed_to, "output").inc(usage.output_tokens)
        _duration(provider).observe(seconds)

    def refused(self, provider: str, code: str) -> None:
        """A call was refused."""
        _refusal(provider, code).inc()
