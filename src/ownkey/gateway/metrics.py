"""What the gateway counts, for Prometheus. No label carries a tenant, a key or a prompt.

Counting happens tens of thousands of times a second, so it is plain arithmetic here; the exposition format is made
when somebody asks for it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ownkey.metering.usage import Usage

_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_LABELS = ("provider", "billed_to", "outcome")


class _Sums:
    """Sums over the calls with the same labels."""

    __slots__ = ("buckets", "input_tokens", "output_tokens", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = self.input_tokens = self.output_tokens = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(_BOUNDS) + 1)


class Metrics(Collector):
    """Counts the exchanges of one process."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.database_up = True
        self._sums: dict[tuple[str, str, str], _Sums] = {}
        self._refusals: dict[tuple[str, str], int] = {}
        self._fallbacks: dict[tuple[str, str, str], int] = {}

    def settled(self, provider: str, billed_to: str, outcome: str, usage: Usage, seconds: float) -> None:
        """A call that was sent has ended."""
        labels = (provider, billed_to, outcome)
        sums = self._sums.get(labels)
        if sums is None:
            sums = self._sums[labels] = _Sums()
        sums.requests += 1
        sums.input_tokens += usage.input_tokens
        sums.output_tokens += usage.output_tokens
        sums.seconds += seconds
        sums.buckets[bisect_left(_BOUNDS, seconds)] += 1

    def refused(self, provider: str, code: str) -> None:
        """A call was refused."""
        self._refusals[provider, code] = self._refusals.get((provider, code), 0) + 1

    def fell_back(self, provider: str, reason: str, outcome: str) -> None:
        """An own key could not serve a call: the allowance ``served`` it, or ``refused``."""
        labels = (provider, reason, outcome)
        self._fallbacks[labels] = self._fallbacks.get(labels, 0) + 1

    def collect(self) -> Iterable[Metric]:
        """Everything counted so far, as Prometheus wants it."""
        requests = CounterMetricFamily("ownkey_requests", "Calls sent to a provider", labels=_LABELS)
        tokens = CounterMetricFamily("ownkey_tokens", "Tokens that providers reported", labels=(*_LABELS, "kind"))
        seconds = HistogramMetricFamily(
            "ownkey_request_seconds", "From reading a request to the end of its reply", labels=_LABELS
        )
        for labels, sums in list(self._sums.items()):
            requests.add_metric(labels, sums.requests)
            tokens.add_metric((*labels, "input"), sums.input_tokens)
            tokens.add_metric((*labels, "output"), sums.output_tokens)
            below, buckets = 0, []
            for bound, number in zip((*map(str, _BOUNDS), "+Inf"), sums.buckets, strict=True):
                below += number
                buckets.append((bound, below))
            seconds.add_metric(labels, buckets, sums.seconds)
        refusals = CounterMetricFamily(
            "ownkey_refusals", "Calls refused or failed with an error of ours", labels=("provider", "code")
        )
        for (provider, code), number in list(self._refusals.items()):
            refusals.add_metric((provider, code), number)
        fallbacks = CounterMetricFamily(
            "ownkey_fallbacks",
            "Calls that an own key could not serve and the allowance was asked for",
            labels=("provider", "reason", "outcome"),
        )
        for names, number in list(self._fallbacks.items()):
            fallbacks.add_metric(names, number)
        in_flight = GaugeMetricFamily("ownkey_requests_in_flight", "Calls under way in this process", self.in_flight)
        up = int(self.database_up)
        database = GaugeMetricFamily("ownkey_database_up", "Whether the database answers: 1, or 0 while it is away", up)
        return requests, tokens, seconds, refusals, fallbacks, in_flight, database
