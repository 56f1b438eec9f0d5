"""Load: wrk on the load core, and what it counted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench.processes import LOAD_CORE

# Each request takes one of the tokens: by chance, or in turn from the one after `first`.
_SCRIPT = """
local tokens = {{}}
for line in io.lines('{tokens}') do tokens[#tokens + 1] = line end
local head, tail
function init(arguments)
  wrk.method, wrk.body = 'POST', [==[{body}]==]
  wrk.headers['content-type'], wrk.headers['authorization'] = 'application/json', 'Bearer TOKEN'
{headers}  local whole = wrk.format()
  local from, to = string.find(whole, 'TOKEN', 1, true)
  head, tail = string.sub(whole, 1, from - 1), string.sub(whole, to + 1)
end
math.randomseed(os.time())
local only, first = #tokens == 1, {first}
function request()
  if only then
    if not whole then whole = head .. tokens[1] .. tail end
    return whole
  end
  if first then
    first = first % #tokens + 1
    return head .. tokens[first] .. tail
  end
  return head .. tokens[math.random(#tokens)] .. tail
end
function done(summary, latency)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
  io.write(string.format('counted %d %d %d %d %d\\n', summary.requests, summary.duration,
    latency:percentile(50), failed, summary.errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """What wrk saw: answered requests, seconds, the median latency in microseconds, and how many were refused."""

    requests: int
    seconds: float
    p50: float
    refused: int = 0

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return self.requests / self.seconds


def load(
    url: str,
    tokens: Path,
    body: Mapping[str, Any],
    connections: int,
    seconds: float,
    *,
    headers: Mapping[str, str] | None = None,
    first: int | None = None,
    patient: bool = False,
) -> Counted:
    """Keep so many connections busy. ``tokens`` has a token a line; ``first`` takes them in turn from the one after.

    Raises ``RuntimeError`` for no answer at all, and unless ``patient`` for any but 2xx and a broken connection.
    """
    script = tokens.with_suffix(".lua")
    turn = "nil" if first is None else str(first)
    more = "".join(f"  wrk.headers['{name}'] = '{value}'\n" for name, value in (headers or {}).items())
    script.write_text(_SCRIPT.format(tokens=tokens, body=json.dumps(body), headers=more, first=turn))
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    done = subprocess.run([*command, "--timeout", "20s", "-s", str(script), url], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("counted ")]
    if done.returncode or not lines:
        raise RuntimeError(f"wrk failed: {done.stdout}{done.stderr}")
    requests, micros, p50, failed, late = map(int, lines[0].split()[1:])
    if late or not requests or (failed and not patient):
        raise RuntimeError(f"{url}: {requests} answers, of which {failed} failed; {late} came too late")
    return Counted(requests - failed, micros / 1_000_000, p50, failed)
