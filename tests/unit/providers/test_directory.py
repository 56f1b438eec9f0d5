"""The providers of an installation: what the operator adds, and what stops the start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from ownkey.api.urls import mount as mount_api
from ownkey.credentials import Secret
from ownkey.errors import InvalidRequest, NotFound
from ownkey.providers.addresses import AddressRefused
from ownkey.providers.directory import RESERVED, Directory
from ownkey.providers.registry import PROVIDERS
from ownkey.settings import read_settings
from ownkey.web.urls import mount as mount_web
from tests.fakes.token_service import document


def directory(**settings: Any) -> Directory:
    """The directory with these settings."""
    return Directory(read_settings(**settings))


def from_file(folder: Path, text: str) -> Directory:
    """The directory with this providers file."""
    file = folder / "providers.toml"
    file.write_text(text)
    return directory(providers_file=file)


def test_without_settings_it_is_the_registry() -> None:
    """Every row, in the registry's order."""
    assert list(directory().items()) == list(PROVIDERS.items())
    with pytest.raises(NotFound):
        directory().find("nobody")


def test_a_base_url_of_a_new_name_is_a_provider() -> None:
    """One variable is enough for an OpenAI-compatible server, private and plain HTTP as it may be."""
    added = directory(base_urls={"my-vllm": "http://10.0.0.5:8000"})["my-vllm"]
    assert (added.name, added.base_url, added.sdk_path) == ("My Vllm", "http://10.0.0.5:8000", "/v1")
    assert (added.dialect, added.check.path, added.address) == ("openai", "/v1/models", None)


def test_a_file_says_more(tmp_path: Path) -> None:
    """Each member of a table is a fact of the row."""
    found = from_file(
        tmp_path,
        """
        [providers.acme-llm]
        address = "https://llm.acme.example/team/"
        name = "Acme LLM"
        api_root = "/openai/v1"
        header = "API-Key"
        prefix = ""
        key_optional = true
        own_keys = false
        assistant_model = "acme-large"
        capabilities = ["text", "images"]
        """,
    )
    row = found["acme-llm"]
    assert (row.name, row.base_url, row.sdk_path) == ("Acme LLM", "https://llm.acme.example/team", "/openai/v1")
    assert (row.check.path, row.credential_header, row.credential_prefix) == ("/openai/v1/models", "api-key", "")
    assert found.usual_address(row) == "https://llm.acme.example/team"
    with pytest.raises(InvalidRequest, match="takes no keys"):
        found.connectable("acme-llm")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "providers"),
        ("[providers", "providers file"),
        ("providers = 5", "providers file"),
        ("[providers.x]", "address"),
        ('[providers.x]\naddress = "llm.example"', "x"),
        ('[providers.x]\naddress = "https://user:pw@llm.example"', "x"),
        ('[providers.x]\naddress = "https://llm.example?a=b"', "x"),
        ('[providers.x]\naddress = "https://llm.example"\ncolour = "red"', "colour"),
        ('[providers.x]\naddress = "https://llm.example"\nheader = "a: b"', "header"),
        ('[providers.x]\naddress = "https://llm.example"\nprefix = "a\\r\\nb"', "prefix"),
        ('[providers.openai]\naddress = "https://llm.example"', "OpenAI"),
        ('[providers.settings]\naddress = "https://llm.example"', "settings"),
        ('[providers.Upper]\naddress = "https://llm.example"', "Upper"),
        ('[providers."a/b"]\naddress = "https://llm.example"', "a/b"),
    ],
)
def test_a_wrong_file_stops_the_start_and_is_named(tmp_path: Path, text: str, named: str) -> None:
    """Whoever runs the service reads which provider and which member is wrong."""
    with pytest.raises(InvalidRequest, match=named):
        from_file(tmp_path, text)


@pytest.mark.parametrize("slug", ["settings", "api", "healthz", "sign-in", "static", "-x", "x_y", "a" * 41])
def test_a_variable_whose_name_is_no_slug_stops_the_start(slug: str) -> None:
    """A provider never hides a page of ours."""
    with pytest.raises(InvalidRequest, match="slug"):
        directory(base_urls={slug: "https://llm.example"})


def test_no_slug_hides_a_path_of_ours() -> None:
    """The first segment of every route is reserved, and no row of the registry has one."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    mount_api(app)
    mount_web(app)
    taken = {path.split("/")[1] for route in app.routes if (path := getattr(route, "path", "")).strip("/")}
    assert {"healthz", "settings", "api", "static"} <= taken | {"healthz"}
    assert taken - RESERVED == set()
    assert RESERVED & PROVIDERS.keys() == set()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"platform_keys": {"azure": Secret("k")}}, "OWNKEY_BASE_URL_AZURE"),
        ({"platform_keys": {"vertex": Secret("sk-1")}}, "OWNKEY_PLATFORM_KEY_VERTEX"),
        ({"platform_keys": {"openai": Secret("sk-1\nsk-2")}}, "OWNKEY_PLATFORM_KEY_OPENAI"),
        ({"platform_keys": {"openai": Secret("“sk-1”")}}, "OWNKEY_PLATFORM_KEY_OPENAI"),
        ({"base_urls": {"openai": "ftp://x"}}, "OWNKEY_BASE_URL_OPENAI"),
        ({"base_urls": {"openai": "https://"}}, "OWNKEY_BASE_URL_OPENAI"),
        ({"allowed_hosts": "http://x"}, "OWNKEY_ALLOWED_HOSTS"),
    ],
)
def test_a_setting_that_cannot_work_stops_the_start(settings: Mapping[str, object], named: str) -> None:
    """What would fail at the first call is told at the start, by the setting's name."""
    with pytest.raises(InvalidRequest, match=named):
        directory(**settings)


def test_a_platform_key_of_each_kind() -> None:
    """A document for Vertex, ``none`` for a server that asks for none, and the name ``none`` nowhere else."""
    vertex = document("a@b.example", "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n")
    keys = {"vertex": Secret(vertex), "ollama": Secret("none"), "openai": Secret("none")}
    found = directory(platform_keys=keys, base_urls={"ollama": "http://127.0.0.1:11434"})
    assert found.platform_key(found["ollama"]) == Secret("")
    assert found.platform_key(found["openai"]) == Secret("none")
    assert found.platform_key(found["vertex"]) == Secret(vertex)
    assert found.platform_key(found["groq"]) is None


def test_an_address_is_asked_for_where_there_is_no_usual_one() -> None:
    """Azure needs a resource beside the key, unless the operator named one for all; Vertex has a usual place."""
    bare, with_resource = directory(), directory(base_urls={"azure": "https://shared.openai.azure.com"})
    with pytest.raises(AddressRefused, match="needs its resource beside the key, for example my-resource"):
        bare.accept(PROVIDERS["azure"], "  ")
    assert bare.accept(PROVIDERS["azure"], "acme") == "https://acme.openai.azure.com"
    assert with_resource.accept(PROVIDERS["azure"], "") == ""
    assert bare.accept(PROVIDERS["vertex"], "") == ""
    assert bare.accept(PROVIDERS["openai"], "") == ""
    assert bare.guard_for(PROVIDERS["azure"], "") is None
    assert bare.guard_for(PROVIDERS["azure"], "https://acme.openai.azure.com") is bare.guard
    with pytest.raises(AddressRefused):
        bare.guard_for(PROVIDERS["azure"], "https://127.0.0.1")
