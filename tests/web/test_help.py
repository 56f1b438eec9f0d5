"""Help: readable by anyone, and true to the tables it is generated from."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ownkey.access import LOWEST_ROLE, Role
from ownkey.providers.registry import PROVIDERS
from ownkey.web.pages import help as help_pages
from tests.web.conftest import PUBLIC_URL, Browser

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("role", ["anonymous", "user", "owner"])
@pytest.mark.parametrize("slug", list(help_pages.ARTICLES))
async def test_anyone_may_read(role: str, slug: str, client_for: Callable[[str], Browser]) -> None:
    """Every article is open to anyone, and has one main heading: its title."""
    page = await client_for(role).page(f"/help/{slug}")
    assert page.h1 == [help_pages.ARTICLES[slug].title]
    assert "[[" not in page.text
    assert "{{" not in page.text


async def test_index(client_for: Callable[[str], Browser]) -> None:
    """The index leads to every article."""
    page = await client_for("anonymous").page("/help")
    for slug, article in help_pages.ARTICLES.items():
        assert f"/help/{slug}" in page.links
        assert article.title in page.text


async def test_unknown_article(client_for: Callable[[str], Browser]) -> None:
    """What is not in the table of articles is not found."""
    for name in ("nothing", "..%2Fusage", "usage.py"):
        assert (await client_for("anonymous").get(f"/help/{name}")).status_code == 404


async def test_links_within_help_lead_somewhere(client_for: Callable[[str], Browser]) -> None:
    """No article points to one that does not exist."""
    anyone = client_for("anonymous")
    for slug in help_pages.ARTICLES:
        for link in (await anyone.page(f"/help/{slug}")).links:
            if link.startswith("/help"):
                assert (await anyone.get(link)).status_code == 200, (slug, link)


def test_every_permission_has_words() -> None:
    """Each action that a role can reach has its words, and nothing else has."""
    assert set(help_pages.PERMISSIONS) == {action for action, role in LOWEST_ROLE.items() if role is not None}
    assert len(set(help_pages.PERMISSIONS.values())) == len(help_pages.PERMISSIONS)


async def test_roles_table(client_for: Callable[[str], Browser]) -> None:
    """The table of roles says what ``access.py`` says."""
    rows = [role for _, role in help_pages.permissions()]
    assert rows == sorted(rows)
    page = await client_for("anonymous").page("/help/roles")
    for words, lowest in help_pages.permissions():
        row = page.html.split(f'<th scope="row">{words}</th>')[1].split("</tr>")[0]
        assert row.count(">Yes<") == len([role for role in Role if role >= lowest]), words


async def test_platforms_table(client_for: Callable[[str], Browser]) -> None:
    """The table of platforms has every provider, where its keys come from, and its base URL."""
    page = await client_for("anonymous").page("/help/platforms")
    for slug, provider in PROVIDERS.items():
        assert provider.name in page.text
        assert provider.console_url in page.links
        assert f"<code>/{slug}{provider.sdk_path}</code>" in page.html
    assert PUBLIC_URL in page.text
