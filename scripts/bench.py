"""Measure the relay beside nginx, in one run, and write the ratios to docs/benchmarks.md.

The gateway under test has one core; the load (wrk) and the provider (nginx with a fixed reply) have another. Ours runs
with everything on: token, role and key version read for each call, a durable reservation and settlement, and a usage
event before the last bytes leave. Rounds alternate between the two, and what counts is the median of the rounds'
ratios, because an absolute figure says more about the machine than about the program.

Needs nginx, wrk and taskset, and two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
LOAD_CORE, GATEWAY_CORE = "0", "1"

REPLY: dict[str, object] = {
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 190}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 180, "completion_tokens": 190, "total_tokens": 370},
}
REQUEST = {
    "model": "gpt-4o-mini",
    "max_tokens": 256,
    "messages": [{"role": "user", "content": "tell me something about bridges " * 26}],
}


@dataclass(frozen=True)
class Case:
    """One thing to measure: the request's body, the reply's file, and whose key serves it."""

    name: str
    streaming: bool
    own_key: bool


CASES = (
    Case("plain JSON, on the allowance", streaming=False, own_key=False),
    Case("plain JSON, on an own key", streaming=False, own_key=True),
    Case("whole streams of 102 events, on the allowance", streaming=True, own_key=False),
    Case("whole streams of 102 events, on an own key", streaming=True, own_key=True),
)


def stream_reply() -> str:
    """102 server-sent events as a chat stream that was asked for its usage has them."""
    chunk: dict[str, object] = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "model": "gpt-4o-mini",
        "usage": None,
    }
    events: list[dict[str, object]] = [
        {**chunk, "choices": [{"index": 0, "delta": {"content": f" word{n:03}"}, "finish_reason": None}]}
        for n in range(100)
    ]
    events.append({**chunk, "choices": [], "usage": REPLY["usage"]})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """Until something accepts connections, at most twenty seconds."""
    for _ in range(400):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


@contextlib.contextmanager
def running(command: list[str], core: str, port: int, **environment: str) -> Iterator[None]:
    """A server on one core, for as long as the block lasts."""
    process = subprocess.Popen(["taskset", "-c", core, *command], env={**os.environ, **environment})
    try:
        wait_for(port)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def nginx(folder: Path, name: str, server: str) -> list[str]:
    """The command of an nginx with one worker and this server block."""
    config = folder / f"{name}.conf"
    config.write_text(
        # The worker reads files of a folder that only we may enter.
        f"{'user root; ' if os.geteuid() == 0 else ''}daemon off; worker_processes 1;\n"
        f"pid {folder}/{name}.pid; error_log {folder}/{name}.log;\n"
        "worker_rlimit_nofile 8192; events { worker_connections 4096; }\n"
        f"http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {folder}/{name}-body;\n"
        f"proxy_temp_path {folder}/{name}-proxy; fastcgi_temp_path {folder}/x1; uwsgi_temp_path {folder}/x2;\n"
        f"scgi_temp_path {folder}/x3; default_type application/json; types {{ text/event-stream sse; }}\n{server} }}\n"
    )
    return ["nginx", "-c", str(config), "-p", str(folder)]


def mock(folder: Path, port: int) -> list[str]:
    """A provider that answers every call with the same file."""
    (folder / "plain.json").write_text(json.dumps(REPLY))
    (folder / "stream.sse").write_text(stream_reply())
    return nginx(
        folder,
        "mock",
        f"open_file_cache max=8; server {{ listen 127.0.0.1:{port} backlog=2048; root {folder};\n"
        "error_page 405 =200 $uri;\n"
        "location /plain/ { rewrite ^ /plain.json last; } location /stream/ { rewrite ^ /stream.sse last; }\n"
        "location ~ (json|sse)$ { error_page 405 =200 $uri; } }\n",
    )


def proxy(folder: Path, port: int, upstream: int) -> list[str]:
    """nginx as the gateway: the physical limit."""
    return nginx(
        folder,
        "proxy",
        f"upstream provider {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000; }}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=2048; location / {{ proxy_pass http://provider;\n"
        'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Authorization "Bearer sk-platform";\n'
        "proxy_buffering off; } }\n",
    )


def ownkey(*arguments: str, text: str | None = None, **environment: str) -> dict[str, object]:
    """Run an operator command and read what it says."""
    command = [str(Path(sys.executable).parent / "ownkey"), *arguments, "--json"]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def load(folder: Path, url: str, token: str, case: Case, connections: int, seconds: int) -> float:
    """Requests a second that wrk gets through."""
    body = {**REQUEST, "stream": True, "stream_options": {"include_usage": True}} if case.streaming else REQUEST
    script = folder / "load.lua"
    script.write_text(
        f"wrk.method = 'POST'\nwrk.headers['content-type'] = 'application/json'\n"
        f"wrk.headers['authorization'] = 'Bearer {token}'\nwrk.body = [==[{json.dumps(body)}]==]\n"
    )
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said:
        raise SystemExit(f"{url} answered with errors:\n{said}")
    return float(next(line.split()[1] for line in said.splitlines() if line.startswith("Requests/sec")))


def measure(folder: Path, case: Case, arguments: argparse.Namespace) -> dict[int, tuple[float, float, list[float]]]:
    """For each number of connections: nginx's and our median rate, and the rounds' ratios."""
    kind = "stream" if case.streaming else "plain"
    upstream, front, ours = free_port(), free_port(), free_port()
    plans = folder / "plans.toml"
    plans.write_text('[plans.free]\nname = "Free"\nmonthly_tokens = 900000000000\napi_access = true\n')
    environment = {
        "OWNKEY_DATA_DIR": str(folder / f"data-{kind}-{case.own_key}"),
        "OWNKEY_PLANS_FILE": str(plans),
        "OWNKEY_BASE_URL_OPENAI": f"http://127.0.0.1:{upstream}/{kind}",
        "OWNKEY_PLATFORM_KEY_OPENAI": "sk-platform",
        "OWNKEY_METRICS_ADDRESS": "",
        "OWNKEY_LOG_LEVEL": "WARNING",
    }
    organization = ownkey("organizations", "create", "Bench", "--owner", "owner@bench.test", **environment)
    slug = str(organization["slug"])
    token = str(ownkey("tokens", "create", slug, "--name", "bench", **environment)["token"])
    if case.own_key:
        ownkey("keys", "set", slug, "openai", "--unchecked", text="sk-own-key-of-the-bench-organization", **environment)
    program = str(Path(sys.executable).parent / "ownkey")
    results: dict[int, tuple[float, float, list[float]]] = {}
    with (
        running(mock(folder, upstream), LOAD_CORE, upstream),
        running(proxy(folder, front, upstream), GATEWAY_CORE, front),
        running([program, "serve", "--port", str(ours)], GATEWAY_CORE, ours, **environment),
    ):
        there, here = f"http://127.0.0.1:{front}/{kind}/v1/chat/completions", f"http://127.0.0.1:{ours}/openai/v1"
        here += "/chat/completions"
        for url in (there, here):
            load(folder, url, token, case, 8, 1)
        for connections in arguments.connections:
            rounds = [
                (
                    load(folder, there, token, case, connections, arguments.seconds),
                    load(folder, here, token, case, connections, arguments.seconds),
                )
                for _ in range(arguments.rounds)
            ]
            results[connections] = (
                statistics.median(a for a, _ in rounds),
                statistics.median(b for _, b in rounds),
                [b / a for a, b in rounds],
            )
        check_counted(environment, slug, case)
    return results


def check_counted(environment: dict[str, str], slug: str, case: Case) -> None:
    """A figure of calls that were not metered is worth nothing: every event must carry what the provider reported."""
    usage = ownkey("usage", slug, **environment)
    events, used, own = (int(str(usage[name])) for name in ("events", "used", "own_key_tokens"))
    counted = own if case.own_key else used
    # A call that wrk cut off at the end of a round is charged by estimate.
    if abs(counted - events * 370) > 64 * 370 * 40 or not events:
        raise SystemExit(f"{case.name}: {events} events, but {counted} tokens")


def versions() -> str:
    """What was measured, on what."""
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.strip()
    return f"{os.cpu_count()} cores of {model}; Python {platform.python_version()}; {said.split(': ')[-1]}"


def main() -> None:
    """Measure every case and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--no-page", action="store_true", help="print only")
    arguments = parser.parse_args()
    missing = [name for name in ("nginx", "wrk", "taskset") if shutil.which(name) is None]
    if missing or (os.cpu_count() or 1) < 2:
        raise SystemExit(f"needs two cores and these programs: {', '.join(missing) or 'all there'}")
    lines = [
        "| case | connections | nginx, requests/s | Ownkey, requests/s | ratio (median) | ratios of the rounds |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="ownkey-bench-", dir=os.environ.get("TMPDIR")) as folder:
            for connections, (there, here, ratios) in measure(Path(folder), case, arguments).items():
                rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
                lines.append(
                    f"| {case.name} | {connections} | {there:,.0f} | {here:,.0f} "
                    f"| **{statistics.median(ratios):.2f}** | {rounds} |"
                )
                print(lines[-1], flush=True)
    if not arguments.no_page:
        PAGE.write_text(
            "# Benchmarks\n\nWritten by `make bench`. "
            + " ".join((__doc__ or "").split("\n\n")[1].split())
            + f"\n\n{time.strftime('%Y-%m-%d', time.gmtime())}, {versions()}.\n\n"
            + "\n".join(lines)
            + "\n"
        )


if __name__ == "__main__":
    main()
