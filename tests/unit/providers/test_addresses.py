"""Where an organization's key may go: what an address may be, and what its name may lead to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownkey.errors import InvalidRequest
from ownkey.providers.addresses import AddressRefused, AllowedHosts, Guard, HostForbidden, accept, is_public, judge
from ownkey.providers.provider import Address, KeyCheck, Provider
from ownkey.providers.registry import PROVIDERS, find

ANY = Provider(
    slug="any",
    name="Any",
    base_url="",
    console_url="",
    check=KeyCheck("/v1/models"),
    address=Address(
        label="Resource",
        example="acme",
        pattern=re.compile(r"[a-z0-9-]{2,20}"),
        template="https://{}.own.example",
        exceptions={"global": "https://own-global.example"},
        whole=True,
        domains=("own.example",),
    ),
)
NOWHERE = AllowedHosts()
EVERYWHERE = AllowedHosts.parse("*")

# What is no place on the internet, in every notation that a resolver or a parser might read.
INSIDE = [
    *("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),  # noqa: S104
    *("169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1", "203.0.113.1", "192.88.99.1"),
    *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:8.8.8.8]", "[::127.0.0.1]", "[fc00::1]", "[fd00:ec2::254]"),
    *("[fe80::1]", "[ff02::1]", "[fec0::1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]"),
    *("[2002:a9fe:a9fe::1]", "[2001::1]", "[2001:db8::1]", "[100::1]", "[64:ff9b::a9fe:a9fe]"),
]
NUMBERS = [
    *("2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "017700000001", "127.0.0.01", "1.2.3.4.5"),
    *("0x7f.0.0.1", "127.0.0.0x1", "300.1.1.1", "[::1%25eth0]", "[fe80::1%eth0]", "[::ffff:0x7f.1]"),
]
NAMES = [
    *("localhost", "LOCALHOST", "foo.localhost", "printer.local", "metadata.google.internal", "metadata"),
    *("instance-data", "kubernetes.default.svc", "db.default.svc.cluster.local", "router.lan", "box.home.arpa"),
    *("own.example.", "llm.own.example.", "..own.example", "-a.own.example", "a..own.example", "*.own.example"),
]


@pytest.mark.parametrize("host", [*INSIDE, *NUMBERS, *NAMES])
@pytest.mark.parametrize("allowed", [NOWHERE, EVERYWHERE], ids=["nothing", "everywhere"])
def test_what_is_not_on_the_internet_is_refused(host: str, allowed: AllowedHosts) -> None:
    """No spelling of a private, local or special host is taken, even where every public host is allowed."""
    with pytest.raises(AddressRefused):
        accept(ANY, f"https://{host}", allowed)
    with pytest.raises(AddressRefused):
        accept(ANY, f"https://{host}:8443/v1", allowed)


@pytest.mark.parametrize(
    "address",
    [
        "http://llm.own.example",
        "HTTP://llm.own.example",
        "ftp://llm.own.example",
        "file:///etc/passwd",
        "https:llm.own.example",
        "https:///llm.own.example",
        "//llm.own.example",
        "https://",
        "https://user@llm.own.example",
        "https://user:secret-of-mine@llm.own.example",
        "https://llm.own.example@127.0.0.1",
        "https://127.0.0.1#@llm.own.example",
        "https://llm.own.example#fragment",
        "https://llm.own.example?query",
        "https://llm.own.example/v1?api-version=1",
        "https://llm.own.example:22",
        "https://llm.own.example:25",
        "https://llm.own.example:80",
        "https://llm.own.example:0",
        "https://llm.own.example:65536",
        "https://llm.own.example:00443",
        "https://llm.own.example:",
        "https://llm.own.example:443:443",
        "https://llm.own.example\\@127.0.0.1",
        "https://llm.own.example\\.evil.example",
        "https://llm.own.example/a\r\nHost: evil",
        "https://llm.own.example\x00.evil.example",
        "https://llm.own\texample",
        "https://llm.own.example/%2e%2e/admin",
        "https://llm.own.example/../admin",
        "https://llm.own.example/./x",
        "https://llm.own.example//evil.example",
        "https://%6c%6c%6d.own.example",
        "https://ｌｌｍ.own.example",  # noqa: RUF001 – so is this
        "https://llm。own.example",
        "https://①②⑦.⓪.⓪.①",
        "https://аcme.own.example",  # noqa: RUF001 – that is the trick
        "https://own.example.evil.example",
        "https://evilown.example",
        "https://" + "a" * 64 + ".own.example",
        "https://own.example/" + "a" * 500,
    ],
)
def test_an_address_that_could_be_read_in_two_ways_is_refused(address: str) -> None:
    """Only https, host, port and a plain path; nothing of a refused address is repeated that may be a password."""
    with pytest.raises(AddressRefused) as refused:
        accept(ANY, address, NOWHERE)
    assert "secret-of-mine" not in refused.value.message
    assert refused.value.message.endswith(".")


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("acme", "https://acme.own.example"),
        ("  Acme\n", "https://acme.own.example"),
        ("global", "https://own-global.example"),
        ("https://own-global.example", "https://own-global.example"),
        ("acme.own.example", "https://acme.own.example"),
        ("https://ACME.own.example/", "https://acme.own.example"),
        ("https://acme.own.example:443", "https://acme.own.example"),
        ("https://acme.own.example:8443/team/v1", "https://acme.own.example:8443/team"),
        ("https://acme.own.example/v1/", "https://acme.own.example"),
        ("https://own.example/some-team", "https://own.example/some-team"),
    ],
)
def test_an_address_is_stored_in_one_form(given: str, stored: str) -> None:
    """A short form becomes the address it stands for; what every path of the API begins with is not in it twice."""
    assert accept(ANY, given, NOWHERE) == stored
    assert judge(ANY, stored, NOWHERE) == stored


@pytest.mark.parametrize(
    ("slug", "short", "url"),
    [
        ("moonshot", "china", "https://api.moonshot.cn"),
        ("qwen", "China", "https://dashscope.aliyuncs.com"),
        ("bedrock", "us-east-1-fips", "https://bedrock-runtime-fips.us-east-1.amazonaws.com"),
    ],
)
def test_a_providers_other_places_need_no_approval(slug: str, short: str, url: str) -> None:
    """By their short form or in full; what only looks like one is somebody else's."""
    provider = find(slug)
    assert accept(provider, short, NOWHERE) == accept(provider, url, NOWHERE) == url
    for other in (f"{url}.evil.example", url.replace("https://", "https://x.")):
        with pytest.raises(AddressRefused):
            accept(provider, other, NOWHERE)


def test_a_provider_with_one_host_takes_no_address() -> None:
    """A key for OpenAI goes to OpenAI, whatever is given beside it."""
    with pytest.raises(AddressRefused, match="same address for everyone"):
        accept(PROVIDERS["openai"], "https://evil.example", EVERYWHERE)


def test_only_the_operator_opens_other_hosts() -> None:
    """A host outside the provider's domains, or a private one, is accepted only if the operator listed it."""
    allowed = AllowedHosts.parse("llm.corp, *.acme.internal, 10.0.0.0/8, 2001:db8::/32")
    for host in ("llm.corp", "a.b.acme.internal", "acme.internal", "10.1.2.3", "[2001:db8::5]"):
        with pytest.raises(AddressRefused, match="OWNKEY_ALLOWED_HOSTS"):
            accept(ANY, f"https://{host}", NOWHERE)
        assert accept(ANY, f"https://{host}", allowed) == f"https://{host}"
    for host in ("x.llm.corp", "evilacme.internal", "11.0.0.1", "127.0.0.1", "elsewhere.example", "[2001:db9::1]"):
        with pytest.raises(AddressRefused):
            accept(ANY, f"https://{host}", allowed)
    assert accept(ANY, "https://elsewhere.example", EVERYWHERE) == "https://elsewhere.example"
    with pytest.raises(AddressRefused, match="https://"):
        accept(ANY, "http://llm.corp", allowed)


@pytest.mark.parametrize("entry", ["http://llm.corp", "10.0.0.1/8", "a b", "*.", "**", "*.*.x", "127.1", "x/y"])
def test_a_list_that_cannot_be_read_is_named(entry: str) -> None:
    """A typing error in the operator's list stops the start, rather than allowing something else."""
    with pytest.raises(InvalidRequest, match="OWNKEY_ALLOWED_HOSTS"):
        AllowedHosts.parse(f"good.example, {entry}")


def guard(allowed: str, *answers: Sequence[str]) -> Guard:
    """A guard whose resolver gives these answers, one after another."""
    left = list(answers)

    async def lookup(host: str, port: int) -> Sequence[str]:
        return left.pop(0)

    return Guard(AllowedHosts.parse(allowed), lookup)


@pytest.mark.anyio
@pytest.mark.parametrize("ip", [host.strip("[]") for host in INSIDE] + ["fe80::1%eth0", "no address"])
async def test_a_name_that_leads_inside_is_refused_at_connect(ip: str) -> None:
    """One result on a machine's or a company's own network is enough to refuse, whatever the others are."""
    for found in ([ip], ["8.8.8.8", ip], [ip, "8.8.8.8"]):
        with pytest.raises(HostForbidden):
            await guard("*", found).resolve("llm.own.example", 443)


@pytest.mark.anyio
async def test_a_name_that_leads_to_the_internet_is_resolved_once() -> None:
    """What was judged is what is connected to: the results come back as they are."""
    found = ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::808:808"]
    assert await guard("", found).resolve("llm.own.example", 443) == found
    with pytest.raises(OSError, match="no address"):
        await guard("", []).resolve("llm.own.example", 443)


@pytest.mark.anyio
async def test_an_approved_name_may_lead_inside_but_not_to_a_machines_own_services() -> None:
    """The operator's word for a name covers private networks; a metadata service needs a block that holds it."""
    approved = "llm.corp, *.acme.internal"
    for host in ("llm.corp", "a.acme.internal"):
        for ip in ("10.0.0.1", "192.168.0.1", "100.64.0.1", "fd12::1", "127.0.0.1", "::1"):
            assert await guard(approved, [ip]).resolve(host, 443) == [ip]
        for ip in ("169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "::ffff:169.254.169.254", "168.63.129.16"):  # noqa: S104
            with pytest.raises(HostForbidden):
                await guard(approved, [ip]).resolve(host, 443)
    with pytest.raises(HostForbidden):
        await guard(approved, ["10.0.0.1"]).resolve("other.example", 443)
    assert await guard("169.254.169.254", ["169.254.169.254"]).resolve("any.example", 443) == ["169.254.169.254"]


@pytest.mark.parametrize("ip", ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700::1111", "2a00:1450::1"])
def test_the_internet_is_public(ip: str) -> None:
    """Ordinary addresses of both families are not refused by accident."""
    assert is_public(ip_address(ip))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_ipv6_is_never_more_public(ip: object) -> None:
    """A private IPv4 address is not public in any of the IPv6 forms that carry it."""
    if not is_public(ip_address(str(ip))):
        number = int(ip_address(str(ip)))
        for high in (0, 0xFFFF << 32, 0x64FF9B << 96, 0x2002 << 112 | number << 80):
            assert not is_public(ip_address((high | number).to_bytes(16, "big")))


@given(st.text(max_size=60))
def test_any_text_is_refused_or_becomes_an_address_of_the_provider(text: str) -> None:
    """Whatever is pasted, nothing but the provider's own hosts comes out, and no other exception."""
    try:
        stored = accept(ANY, text, NOWHERE)
    except AddressRefused:
        return
    assert re.fullmatch(r"https://([a-z0-9-_.]+\.)?own(-global)?\.example(:\d+)?(/[\w.~-]+)*", stored, re.ASCII)


@pytest.mark.parametrize("slug", [slug for slug, row in PROVIDERS.items() if row.address])
def test_every_row_takes_its_own_example(slug: str) -> None:
    """What a row shows as an example is accepted without the operator's approval, where it is a short form."""
    provider = PROVIDERS[slug]
    assert provider.address is not None
    if provider.address.pattern is not None:
        stored = accept(provider, provider.address.example, NOWHERE)
        assert stored.startswith("https://")
        assert judge(provider, stored, NOWHERE) == stored
    for short, url in provider.address.exceptions.items():
        assert accept(provider, short, NOWHERE) == url
