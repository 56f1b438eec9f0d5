"""The reference pages say what the code does: every setting, command, error, action, provider and route."""

from __future__ import annotations

import re
from pathlib import Path

from ownkey.access import LOWEST_ROLE, Action
from ownkey.api.urls import ROUTES
from ownkey.cli.main import app
from ownkey.providers.registry import PROVIDERS
from ownkey.settings import Settings
from scripts import docs

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    """A page of the documentation."""
    return (ROOT / "docs" / name).read_text()


def test_reference_pages_are_current() -> None:
    """Each page is what ``scripts/docs.py`` writes today."""
    assert docs.outdated() == []


def test_every_setting_is_explained() -> None:
    """Each field of ``Settings`` has a description and a line."""
    names = {name.upper() for name in Settings.model_fields} - {"PLATFORM_KEYS", "BASE_URLS"}
    for name in names | {"PLATFORM_KEY_<PROVIDER>", "BASE_URL_<PROVIDER>", "SECRETS_DIR"}:
        assert f"| `OWNKEY_{name}` |" in page("configuration.md"), name
    assert all(field.description for field in Settings.model_fields.values())


def test_every_action_error_provider_and_route_has_its_line() -> None:
    """The tables are complete: nothing is left out of the page by the way it is written."""
    assert set(LOWEST_ROLE) == set(Action)
    assert [action.value for action in Action if f"| `{action.value}` |" not in page("roles.md")] == []
    assert [kind.code for kind in docs.error_classes() if f"| `{kind.code}` |" not in page("errors.md")] == []
    assert [slug for slug in PROVIDERS if f"| `{slug}` |" not in page("providers.md")] == []
    assert [r.path for r in ROUTES if f"| `{r.method} {r.path}` |" not in page("management-api.md")] == []


def test_every_command_has_its_section() -> None:
    """Each command of the tree has a heading, and each of its parameters a sentence."""
    text = page("commands.md")
    for name in app:
        if not name.startswith("-"):
            assert f"## ownkey {name}\n" in text, name
    assert re.findall(r"^\* `[^`]+`: (?:None|$)", text, re.MULTILINE) == []


def test_links_between_documents_lead_somewhere() -> None:
    """Every relative link of the README and of ``docs/`` is to a file, and to a heading that it has."""
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", file.read_text()):
            path, _, anchor = target.partition("#")
            other = (file.parent / path) if path else file
            assert other.exists(), f"{file.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", other.read_text(), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, target


def test_the_architecture_names_what_there_is() -> None:
    """Every file that the architecture page names is there."""
    source = ROOT / "src" / "ownkey"
    for name in re.findall(r"`([\w/]+\.py)`", page("architecture.md")):
        assert list(source.glob(f"**/{name}")), name
