"""Other gateways, where ``make bench-peers`` has installed them: how each is started, forwarding to our provider.

One worker on the gateway's core, no database, no log of calls: each in its fastest plain configuration.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".bench-peers"
_KEY = "sk-key-of-the-bench-and-of-nobody-else"


@dataclass(frozen=True, slots=True)
class Setup:
    """How to start a gateway and how to call it. ``path`` is that of chat completions."""

    command: Sequence[str]
    path: str = "/v1/chat/completions"
    environment: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    # A file with the address, of one that chooses its port itself.
    address: Path | None = None
    token: str = _KEY


@dataclass(frozen=True, slots=True)
class Peer:
    """A gateway. ``set_up`` gets a folder, the port and the provider's address."""

    name: str
    folder: str
    version: Callable[[Path], str]
    set_up: Callable[[Path, int, str], Setup]

    @property
    def installed(self) -> bool:
        """Whether it is there."""
        return (FOLDER / self.folder).is_dir()


def _python_package(name: str) -> Callable[[Path], str]:
    def version(folder: Path) -> str:
        program = f"from importlib.metadata import version; print(version({name!r}))"
        return subprocess.run(
            [folder / "bin" / "python", "-c", program], capture_output=True, text=True, check=True
        ).stdout.strip()

    return version


def _npm_package(name: str) -> Callable[[Path], str]:
    def version(folder: Path) -> str:
        found: str = json.loads((folder / "node_modules" / name / "package.json").read_text())["version"]
        return found

    return version


def _litellm(folder: Path, port: int, provider: str) -> Setup:
    config, log = folder / "litellm.yaml", folder / "log.json"
    config.write_text(
        "model_list:\n  - model_name: gpt-4o-mini\n    litellm_params:\n      model: openai/gpt-4o-mini\n"
        f"      api_base: {provider}/v1\n      api_key: sk-platform\n"
        f"general_settings:\n  master_key: {_KEY}\nlitellm_settings:\n  telemetry: false\n"
    )
    quiet = {"uvicorn": {"level": "WARNING"}, "uvicorn.access": {"level": "WARNING", "propagate": False}}
    log.write_text(json.dumps({"version": 1, "disable_existing_loggers": False, "loggers": quiet}))
    program = FOLDER / "litellm" / "bin" / "litellm"
    options = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--log_config", str(log)]
    # Its list of prices comes from the network otherwise.
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    return Setup([str(program), "--config", str(config), *options], environment=environment)


_TENSORZERO = """
import pathlib, socket, sys
from tensorzero.tensorzero import _start_http_gateway

config, address, port = sys.argv[1:]
nothing = dict(clickhouse_url=None, postgres_url=None, valkey_url=None)
gateway = _start_http_gateway(config_file=config, async_setup=False, **nothing)
pathlib.Path(address).write_text(gateway.base_url)
with socket.create_server(("127.0.0.1", int(port))) as ready:
    while True:
        ready.accept()
"""


def _tensorzero(folder: Path, port: int, provider: str) -> Setup:
    config, address = folder / "tensorzero.toml", folder / "address"
    config.write_text(
        '[gateway]\nobservability.enabled = false\n[models."gpt-4o-mini"]\nrouting = ["bench"]\n'
        '[models."gpt-4o-mini".providers.bench]\ntype = "openai"\nmodel_name = "gpt-4o-mini"\n'
        f'api_base = "{provider}/v1"\napi_key_location = "none"\n'
    )
    python = FOLDER / "tensorzero" / "bin" / "python"
    return Setup(
        [str(python), "-c", _TENSORZERO, str(config), str(address), str(port)],
        "/chat/completions",
        fields={"model": "tensorzero::model_name::gpt-4o-mini"},
        address=address,
    )


def _ferro(folder: Path, port: int, provider: str) -> Setup:
    config = folder / "ferro.yaml"
    config.write_text("strategy:\n  mode: single\ntargets:\n  - virtual_key: openai\n")
    environment = {
        "GATEWAY_CONFIG": str(config),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "MASTER_KEY": f"fgw_{'0123456789abcdef' * 2}",
        "OPENAI_API_KEY": "sk-platform",
        "OPENAI_BASE_URL": provider,
        "RATE_LIMIT_RPS": "10000000",
        "RATE_LIMIT_BURST": "10000000",
        "LOG_LEVEL": "error",
        "FERRO_MODEL_CATALOG_TIMEOUT": "1s",
    }
    program = FOLDER / "ferro" / "bin" / "ferrogw"
    return Setup([str(program), "serve"], environment=environment, token=environment["MASTER_KEY"])


def _portkey(folder: Path, port: int, provider: str) -> Setup:
    program = FOLDER / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    return Setup(
        ["node", str(program), f"--port={port}", "--headless"],
        environment={"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "NODE_ENV": "production"},
        headers={"x-portkey-provider": "openai", "x-portkey-custom-host": f"{provider}/v1"},
    )


PEERS: Sequence[Peer] = (
    Peer("LiteLLM", "litellm", _python_package("litellm"), _litellm),
    Peer("TensorZero", "tensorzero", _python_package("tensorzero"), _tensorzero),
    Peer("Portkey", "portkey", _npm_package("@portkey-ai/gateway"), _portkey),
    Peer("Ferro", "ferro", _python_package("ferrogw"), _ferro),
)
