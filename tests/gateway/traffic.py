"""Clients that go on whatever happens to the nodes, and remember what each of their calls came to."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from tests.fakes.provider import FakeProvider
from tests.gateway.wire import Wire, chat, post

CHAT = "/openai/v1/chat/completions"
_SAID = re.compile(rb'"content":"[^"]')
_PATIENCE_SECONDS = 60.0
Kind = Literal["plain", "stream", "leaving"]


@dataclass
class Made:
    """A call as its client saw it. Moments are ``time.time()``."""

    number: int
    """The provider finds it in the text: one call, one number."""
    slot: int
    """Whose call: a client makes one after the other. It stands in the model's name."""
    began: float
    ended: float = 0.0
    size: int = 0
    """Bytes of its body."""
    limit: int = 0
    """Output tokens it asked for at most."""
    status: int = 0
    """0 if no head of a reply came."""
    request_id: str = ""
    retry_after: str = ""
    code: str = ""
    """Of a refusal, or of the error event at the end of a stream that was broken off."""
    arrived: list[float] = field(default_factory=list)
    """When each token of a stream came."""
    whole: bool = False
    left: bool = False
    """The client hung up by itself."""

    @property
    def model(self) -> str:
        """What an event has of it."""
        return f"gpt-{self.slot}"

    @property
    def ceiling(self) -> int:
        """The most that it may hold and be charged."""
        return self.size + self.limit

    def delivered(self, until: float | None = None) -> int:
        """Tokens that came, all or until a moment."""
        return len(self.arrived) if until is None else sum(moment <= until for moment in self.arrived)


_numbers = count(1)


def number_of(text: str) -> int:
    """The number of the call that has this text, 0 if it is none of ours."""
    found = re.match(r"call (\d+) ", text)
    return int(found[1]) if found else 0


def make(
    url: str,
    token: str,
    slot: int,
    kind: Kind,
    tokens: int,
    pause: float = 0.0,
    leave_after: int = 0,
    trouble: str = "",
) -> Made:
    """One call on a connection of its own, to its end, of whatever kind that is; ``trouble`` is the provider's."""
    made = Made(next(_numbers), slot, time.time(), limit=tokens + 20)
    text = f"call {made.number} [[tokens:{tokens}]][[pause:{pause}]]{trouble}"
    body = {**chat(text, max_tokens=made.limit, stream=kind != "plain"), "model": made.model}
    made.size = len(json.dumps(body))
    try:
        with Wire(url, _PATIENCE_SECONDS) as wire:
            wire.send(post(CHAT, token, body))
            _read(wire, made, kind, leave_after)
    except ConnectionError:
        pass
    made.ended = time.time()
    return made


def _read(wire: Wire, made: Made, kind: Kind, leave_after: int) -> None:
    head = wire.head()
    made.status, made.request_id = head.status, head.headers.get("x-request-id", "")
    made.retry_after = head.headers.get("retry-after", "")
    if kind == "plain" or head.status != 200:
        reply = wire.body_of(head)
        made.whole = True
        if head.status != 200:
            made.code = reply.json["error"]["code"]
        return
    while (line := wire.line()) != b"0":
        made.arrived += [time.time()] * len(_SAID.findall(line))
        if b'"error":' in line:
            made.code = json.loads(line.partition(b"data:")[2])["error"]["code"]
        if leave_after and made.delivered() >= leave_after:
            made.left = True
            return
    made.whole = not made.code


class Streams:
    """Streams that run at the same time, each of a client of its own."""

    def __init__(self, urls: Sequence[str], token: str, slot: int, lengths: Sequence[int], pause: float) -> None:
        """Begin them; ``slot`` is the first client's, ``lengths`` are tokens."""
        self.calls: list[Made] = []
        self._slots, self._began = range(slot, slot + len(lengths)), time.time()

        def stream(number: int) -> None:
            self.calls.append(make(urls[number % len(urls)], token, slot + number, "stream", lengths[number], pause))

        self._threads = [threading.Thread(target=stream, args=(number,), daemon=True) for number in range(len(lengths))]
        for thread in self._threads:
            thread.start()

    def wait_until_all_run(self, provider: FakeProvider) -> None:
        """Wait until the provider has said something in each; a failure if one is refused."""

        def all_run(provider: FakeProvider) -> bool:
            assert [call for call in list(self.calls) if call.status != 200] == []
            return set(self._slots) <= {
                int(one.model.removeprefix("gpt-"))
                for one in provider.requests
                if one.tokens_out and one.stream and one.at >= self._began
            }

        provider.wait(all_run, 30)

    def end(self) -> list[Made]:
        """Wait for the end of all; what became of them."""
        for thread in self._threads:
            thread.join(_PATIENCE_SECONDS)
        assert len(self.calls) == len(self._slots)
        return self.calls


class Traffic:
    """Clients, each a thread, that call one node after the other until told to stop."""

    def __init__(self, urls: Sequence[str], token: str, seed: int, longest: float = 4.0) -> None:
        """``longest``: seconds that a stream may take."""
        self.calls: list[Made] = []
        self.failures: list[BaseException] = []
        self._urls, self._token, self._longest = urls, token, longest
        self._seed, self._stop, self._threads = seed, threading.Event(), list[threading.Thread]()

    def begin(self, plain: int, streams: int, leaving: int) -> Traffic:
        """Set so many clients of each kind going."""
        kinds: list[Kind] = [*["plain"] * plain, *["stream"] * streams, *["leaving"] * leaving]  # type: ignore[list-item]
        for slot, kind in enumerate(kinds):
            thread = threading.Thread(target=self._go_on, args=(slot, kind), name=f"client-{slot}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def stop(self) -> list[Made]:
        """Let all calls end, and give them."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_PATIENCE_SECONDS)
        assert not any(thread.is_alive() for thread in self._threads), "a client waits for ever"
        if self.failures:
            raise self.failures[0]
        return self.calls

    def _go_on(self, slot: int, kind: Kind) -> None:
        draw = random.Random(f"{self._seed} {slot}")  # noqa: S311
        while not self._stop.is_set():
            url = draw.choice(self._urls)
            try:
                if kind == "plain":
                    made = make(
                        url, self._token, slot, "plain" if draw.random() < 0.5 else "stream", draw.randint(1, 40)
                    )
                elif kind == "stream":
                    tokens = draw.randint(20, int(self._longest / 0.05))
                    made = make(url, self._token, slot, "stream", tokens, 0.05)
                else:
                    made = make(url, self._token, slot, "leaving", 80, 0.02, draw.randint(1, 60))
            except BaseException as error:
                self.failures.append(error)
                return
            self.calls.append(made)
            self._stop.wait(draw.uniform(0.05, 0.4))
