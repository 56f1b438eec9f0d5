"""nginx, twice: a provider that answers every call with the same file, and the proxy that is the physical limit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

USAGE = {"prompt_tokens": 180, "completion_tokens": 190, "total_tokens": 370}
REQUEST: Mapping[str, Any] = {
    "model": "gpt-4o-mini",
    "max_tokens": 256,
    "messages": [{"role": "user", "content": "tell me something about bridges " * 26}],
}
STREAM_REQUEST: Mapping[str, Any] = {**REQUEST, "stream": True, "stream_options": {"include_usage": True}}
_REPLY: Mapping[str, Any] = {
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "created": 1760000000,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 190}, "finish_reason": "stop"}],
    "usage": USAGE,
}
_CHUNK: Mapping[str, Any] = {
    "id": "chatcmpl-bench",
    "object": "chat.completion.chunk",
    "created": 1760000000,
    "model": "gpt-4o-mini",
    "usage": None,
}


def stream_events(words: int) -> Sequence[bytes]:
    """The events of a chat stream that was asked for its usage: one for each word, then the usage, then the end."""
    events: list[Mapping[str, Any]] = [
        {**_CHUNK, "choices": [{"index": 0, "delta": {"content": f" word{n:03}"}, "finish_reason": None}]}
        for n in range(words)
    ]
    events.append({**_CHUNK, "choices": [], "usage": USAGE})
    return [*(f"data: {json.dumps(event)}\n\n".encode() for event in events), b"data: [DONE]\n\n"]


def provider(folder: Path, port: int) -> Sequence[str]:
    """The command of a provider: below /plain/ it answers with a JSON document, below /stream/ with 102 events."""
    (folder / "plain.json").write_text(json.dumps(_REPLY))
    (folder / "stream.sse").write_bytes(b"".join(stream_events(100)))
    return _command(
        folder,
        "provider",
        f"open_file_cache max=8; server {{ listen 127.0.0.1:{port} backlog=2048; root {folder};\n"
        "error_page 405 =200 $uri;\n"
        "location /plain/ { rewrite ^ /plain.json last; } location /stream/ { rewrite ^ /stream.sse last; }\n"
        "location ~ (json|sse)$ { error_page 405 =200 $uri; } }\n",
    )


def proxy(folder: Path, port: int, upstream: int) -> Sequence[str]:
    """The command of a proxy with one worker that puts the provider's key in and passes everything on."""
    return _command(
        folder,
        "proxy",
        f"upstream provider {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000; }}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=2048; location / {{ proxy_pass http://provider;\n"
        'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Authorization "Bearer sk-platform";\n'
        "proxy_buffering off; } }\n",
    )


def _command(folder: Path, name: str, server: str) -> Sequence[str]:
    config = folder / f"{name}.conf"
    config.write_text(
        # The worker reads files of a folder that only we may enter.
        f"{'user root; ' if os.geteuid() == 0 else ''}daemon off; worker_processes 1;\n"
        f"pid {folder}/{name}.pid; error_log {folder}/{name}.log;\n"
        "worker_rlimit_nofile 16384; events { worker_connections 8192; }\n"
        f"http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {folder}/{name}-body;\n"
        f"proxy_temp_path {folder}/{name}-proxy; fastcgi_temp_path {folder}/x1; uwsgi_temp_path {folder}/x2;\n"
        f"scgi_temp_path {folder}/x3; default_type application/json; types {{ text/event-stream sse; }}\n{server} }}\n"
    )
    return ["nginx", "-c", str(config), "-p", str(folder)]
