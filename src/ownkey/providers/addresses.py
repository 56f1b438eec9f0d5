"""Where a key may be sent: what an address from an organization may be, and which IP addresses its name may lead to.

An organization names hosts of the provider's own domains, and those that the operator allows. The operator's own
addresses, from the settings, are not judged here. The rules hold when an address is saved and again whenever a
connection is made: then the name is resolved once, every result is judged, and the connection goes to one of these.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from ownkey.errors import InvalidRequest
from ownkey.providers.provider import Provider

IP = IPv4Address | IPv6Address
# Finds the addresses of a host name, for a port.
Lookup = Callable[[str, int], Awaitable[Sequence[str]]]

# Of what a person may give.
LONGEST = 500
_URL = re.compile(
    r"https://([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?((?:/[\w.~-]+)*)/?", re.ASCII | re.IGNORECASE
)
_NAME = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII
)
# A name that ends so is read as a number by some resolvers: 127.1, 0x7f.1, 2130706433.
_NUMBER_AT_END = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)", re.ASCII)
# Names that only mean something inside a network; a cloud's metadata service is among them.
_INSIDE = (
    *("localhost", "localdomain", "local", "internal", "intranet", "lan", "home", "home.arpa", "corp", "private"),
    *("cluster.local", "svc"),
)
# Not for use on the internet, whatever the installed Python's own tables say of them
# (https://www.iana.org/assignments/iana-ipv4-special-registry); 6to4 relays; and Azure's machine agent.
_NOT_PUBLIC = tuple(
    map(ip_network, ("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4"))
)
_MACHINE = tuple(map(ip_network, ("168.63.129.16/32", "fd00:ec2::254/128", "169.254.0.0/16", "100.100.100.200/32")))
_IPV6_PUBLIC = IPv6Network("2000::/3")
# Forms of IPv6 that carry an IPv4 address somewhere inside, or are for documents: Teredo and others, 6to4, examples.
_IPV6_NOT_PUBLIC = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
# A network without IPv4 translates here (RFC 6052); what is reached is the IPv4 address in the last 32 bits.
_NAT64 = IPv6Network("64:ff9b::/96")


class AddressRefused(InvalidRequest):
    """An organization's address cannot be used, and why."""


class HostForbidden(OSError):
    """A host name leads to an IP address where no organization's key may go."""


def is_public(ip: IP) -> bool:
    """Whether an IP address is of the internet, and no machine's own network can be behind it."""
    if isinstance(ip, IPv6Address):
        if ip in _NAT64:
            return is_public(IPv4Address(int(ip) & 0xFFFFFFFF))
        return ip in _IPV6_PUBLIC and ip.is_global and not any(ip in block for block in _IPV6_NOT_PUBLIC)
    outside = ip.is_global and not (ip.is_multicast or ip.is_reserved)
    return outside and not any(ip in block for block in (*_NOT_PUBLIC, *_MACHINE))


def _is_nobodys(ip: IP) -> bool:
    """Whether no service of a company can be there: only a block of addresses that holds it allows it."""
    special = ip.is_link_local or ip.is_multicast or ip.is_unspecified or (ip.is_reserved and not ip.is_loopback)
    hidden = isinstance(ip, IPv6Address) and (ip.ipv4_mapped or ip.sixtofour or ip.teredo or ip in _NAT64)
    return special or bool(hidden) or any(ip in block for block in (*_MACHINE, IPv4Network("0.0.0.0/8")))


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The hosts that the operator lets organizations name: ``OWNKEY_ALLOWED_HOSTS``.

    A name, or ``*.`` and a domain, may lead to private addresses; a block of IP addresses may be named by them, and
    led to by any name that is fine otherwise; ``*`` is every host of the internet.
    """

    names: frozenset[str] = frozenset()
    domains: tuple[str, ...] = ()
    blocks: tuple[IPv4Network | IPv6Network, ...] = ()
    everywhere: bool = False

    @classmethod
    def parse(cls, text: str) -> AllowedHosts:
        """Read the setting. Raises ``InvalidRequest`` naming what is neither a name nor a block."""
        names, domains, blocks = set(), [], []
        entries = [entry.strip().lower() for entry in text.split(",") if entry.strip()]
        for entry in entries:
            if entry == "*":
                continue
            bare = entry.removeprefix("*.")
            if _NAME.fullmatch(bare) and not _NUMBER_AT_END.fullmatch(bare):
                if bare == entry:
                    names.add(bare)
                else:
                    domains.append(bare)
                continue
            try:
                blocks.append(ip_network(entry.strip("[]")))
            except ValueError:
                raise InvalidRequest(
                    f"OWNKEY_ALLOWED_HOSTS: {entry!r} is no host name, *.domain or block such as 10.0.0.0/8."
                ) from None
        return cls(frozenset(names), tuple(domains), tuple(blocks), "*" in entries)

    def has_name(self, host: str) -> bool:
        """Whether this very name, or a domain above it, is listed."""
        return host in self.names or _is_below(host, self.domains)

    def has_ip(self, ip: IP) -> bool:
        """Whether a listed block holds this address."""
        return any(ip.version == block.version and ip in block for block in self.blocks)


async def look_up(host: str, port: int) -> Sequence[str]:
    """The addresses of a host name, as this machine resolves it. Raises ``OSError`` if there is none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class Guard:
    """Resolves the host of an organization's address for a connection, and judges every result."""

    allowed: AllowedHosts
    lookup: Lookup = look_up

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """The IP addresses to connect to, without resolving again.

        Raises ``HostForbidden`` if any of them may not be reached, else ``OSError``.
        """
        found = await self.lookup(host, port)
        if not found:
            raise OSError(f"{host} has no address")
        for text in found:
            try:
                fine = self._may_reach(host, ip_address(text))
            except ValueError:  # a scoped address: fe80::1%eth0
                fine = False
            if not fine:
                raise HostForbidden(f"{host} leads to a network where no key may be sent")
        return found

    def _may_reach(self, host: str, ip: IP) -> bool:
        return is_public(ip) or self.allowed.has_ip(ip) or (self.allowed.has_name(host) and not _is_nobodys(ip))


def accept(provider: Provider, given: str, allowed: AllowedHosts) -> str:
    """The address that an organization gave for its key, in full: ``https://host[:port][/prefix]``.

    ``given`` is the short form that the provider's row asks for, or an address. Raises ``AddressRefused``, which says
    what to write instead.
    """
    address, text = provider.address, given.strip()
    if len(text) > LONGEST:
        raise AddressRefused(f"The address is longer than {LONGEST} characters.")
    if address is None:
        raise AddressRefused(f"{provider.name} has the same address for everyone. Leave it out.")
    if address.pattern is not None and address.pattern.fullmatch(text.lower()):
        short = text.lower()
        return judge(provider, address.exceptions.get(short) or address.template.format(short), allowed)
    if "://" not in text and not (address.whole and "." in text):
        raise AddressRefused(f"This is no {address.label.lower()} of {provider.name}. It looks like {address.example}.")
    url = text if "://" in text else f"https://{text}"
    return judge(provider, url, allowed)


def judge(provider: Provider, url: str, allowed: AllowedHosts) -> str:
    """The address in its usual form, if an organization's key for the provider may go there.

    Raises ``AddressRefused``. The prefix loses the part that is in every path of the API, such as ``/v1``.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise AddressRefused(_what_is_wrong(url))
    host, port, prefix = match[1].lower(), match[2] or "443", match[3]
    if not (port == "443" or 1024 <= int(port) <= 65535) or port.startswith("0"):
        raise AddressRefused("Use the usual port 443, or one from 1024 to 65535.")
    if any(part in (".", "..") for part in prefix.split("/")):
        raise AddressRefused("Write the address without . and .. in its path.")
    for root in sorted(provider.api_roots, key=len, reverse=True):
        if root and prefix.endswith(root):
            prefix = prefix.removesuffix(root)
            break
    made = provider.address is not None and port == "443" and provider.address.makes(f"https://{host}")
    _judge_host(provider, host, allowed, made)
    return f"https://{host}{'' if port == '443' else f':{port}'}{prefix}"


def _judge_host(provider: Provider, host: str, allowed: AllowedHosts, made: bool) -> None:
    ip = _ip_of(host)
    if ip is not None:
        if allowed.has_ip(ip) or (allowed.everywhere and is_public(ip)):
            return
        raise AddressRefused(_not_allowed(provider, host) if is_public(ip) else _inside(host))
    if not _NAME.fullmatch(host) or _NUMBER_AT_END.fullmatch(host):
        raise AddressRefused(f"{host} is no host name.")
    if made or allowed.has_name(host):
        return
    if "." not in host or _is_below(host, _INSIDE):
        raise AddressRefused(_inside(host))
    own = provider.address.domains if provider.address else ()
    if not (allowed.everywhere or _is_below(host, own)):
        raise AddressRefused(_not_allowed(provider, host))


def _ip_of(host: str) -> IP | None:
    """The IP address that a host is, in its one usual notation; None for a name."""
    try:
        return IPv6Address(host[1:-1]) if host.startswith("[") else IPv4Address(host)
    except ValueError:
        return None


def _is_below(host: str, domains: Iterable[str]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


def _inside(host: str) -> str:
    return (
        f"{host} is inside a private network, where no key may be sent. Whoever runs this service can allow it "
        "(OWNKEY_ALLOWED_HOSTS)."
    )


def _not_allowed(provider: Provider, host: str) -> str:
    own = provider.address.domains if provider.address else ()
    whose = f"is not below {' or '.join(own)}, so it" if own else f"as a host for {provider.name}"
    return f"{host} {whose} needs the approval of whoever runs this service (OWNKEY_ALLOWED_HOSTS)."


def _what_is_wrong(url: str) -> str:
    """Why an address cannot be read as one; shows nothing of it, because a password may be in it."""
    if not url.isascii() or not url.isprintable() or any(mark in url for mark in " \\%"):
        return "The address has characters that an address has not. Write names in their ASCII form (xn--…)."
    scheme, _, rest = url.partition("://")
    if scheme.lower() != "https":
        return "The address must begin with https://."
    if "@" in rest:
        return "Write the address without a user name or password."
    if "?" in rest or "#" in rest:
        return "Write the address without what follows ? or #."
    return "This is no address such as https://host or https://host:8443/path."
