"""Where an HTTP source may connect: to public addresses, and to others only when the operator names them.

Otherwise a template's host, a redirect or a DNS answer could make a worker read what only it can reach: a cloud's metadata service, a
database's console, another container. A name is resolved once, and the address that is connected to is the one that is checked. So
decimal, octal or hexadecimal notations, IPv4 inside IPv6 and a DNS that changes its answer do not get around it.
"""

import ipaddress
import re
import shlex
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self, TypeAlias

import httpcore

from archisync.base.errors import ConfigurationError, SourceError, TransientSourceError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
USUAL_PORTS = (80, 443)
LAST_PORT = 65535
_VARIABLE = "ARCHISYNC_HTTP_ALLOW_PRIVATE"
_ITEM = re.compile(r"(?:\[([0-9a-f:./]+)\]|([^:\[\]]+))(?::([0-9]{1,5}|\*))?")
_HOST = re.compile(r"[a-z0-9._-]+")
_HINT = "for example erp.example:8080,10.1.0.0/16 (without a port: 80 and 443; with :*, any) — or yes alone, for every address"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")
"""The only IPv6 addresses that are given to anybody on the internet; fec0::/10 and many others are not among them."""
_SPECIAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
        "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
        "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
    )
)  # fmt: skip
"""IANA's special-purpose addresses, which nobody's ERP has. Python's `ipaddress` knows those of the year of its release."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowed:
    """What the operator allows besides public addresses: host names, as in the template, and networks, each with its port. No port means
    any."""

    everything: bool = False
    hosts: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[tuple[Network, int | None], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """`yes`, or a list of hosts, addresses and CIDRs, each with `:port`, `:*`, or neither: USUAL_PORTS. Raises ConfigurationError."""
        items = text.lower().replace(",", " ").split()
        if items == ["yes"]:
            return cls(everything=True)
        hosts: set[tuple[str, int | None]] = set()
        networks: list[tuple[Network, int | None]] = []
        for item in items:
            where, ports = _parse(item)
            if isinstance(where, str):
                hosts |= {(where, port) for port in ports}
            else:
                networks += [(where, port) for port in ports]
        return cls(hosts=frozenset(hosts), networks=tuple(networks))

    def permits(self, host: str, address: Address, port: int) -> bool:
        inner = innermost(address)
        if self.everything or not self.hosts.isdisjoint({(host.lower(), port), (host.lower(), None)}):
            return True
        return is_public(inner) or any(
            allowed in (port, None) and (inner in network or address in network) for network, allowed in self.networks
        )


def _parse(item: str) -> tuple[str | Network, tuple[int | None, ...]]:
    """One item of the list: a host or network, and its ports. Raises ConfigurationError."""
    bare_ipv6 = item.count(":") > 1 and not item.startswith("[")
    found = _ITEM.fullmatch(f"[{item}]" if bare_ipv6 else item)
    if found is None or int((found[3] or "*").replace("*", "0")) > LAST_PORT:
        raise _wrong(item)
    ports: tuple[int | None, ...] = (None,) if found[3] == "*" else (int(found[3]),) if found[3] else USUAL_PORTS
    with suppress(ValueError):
        return ipaddress.ip_network(found[1] or found[2], strict=False), ports
    if found[1] or not _HOST.fullmatch(found[2]) or found[2] in ("yes", "no"):
        raise _wrong(item)
    return found[2], ports


def _wrong(item: str) -> ConfigurationError:
    shown = ascii(item.rpartition("@")[2][:80])  # what stands before an @ may be a password
    return ConfigurationError(f"{_VARIABLE} has {shown}, which is no host, address or CIDR", hint=_HINT)


def innermost(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one that only wraps it (mapped, 6to4, NAT64); any other address unchanged."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inside = address.ipv4_mapped or address.sixtofour
    if inside is None and address in _NAT64:
        inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inside is None and int(address) >> 32 == 0 and int(address) > 1:  # ::a.b.c.d, long deprecated
        inside = ipaddress.IPv4Address(int(address))
    return inside or address


def is_public(address: Address) -> bool:
    """Whether the address may be anybody's on the internet. For one that wraps another, ask of the `innermost` one."""
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST:
        return False
    return address.is_global and not any(address in network for network in _SPECIAL)


class GuardedBackend(httpcore.NetworkBackend):
    """Resolves, checks and connects in one step. Nothing continues after `deadline` (monotonic seconds).

    `by_redirect`: another host than the template's own one is connected to, because a server has said so.
    """

    def __init__(self, allowed: Allowed, deadline: float, *, by_redirect: bool) -> None:
        self._allowed = allowed
        self._deadline = deadline
        self._by_redirect = by_redirect
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Raises SourceError when the host has no address that may be connected to."""
        failure: Exception = TransientSourceError(f"{host} has no address")
        for address in self._permitted(host, port, resolve(host, port)):
            try:
                stream = self._backend.connect_tcp(
                    str(address), port, _left(self._deadline, timeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
                continue
            return _TimedStream(stream, self._deadline)
        raise failure

    def _permitted(self, host: str, port: int, addresses: list[Address]) -> list[Address]:
        permitted = [address for address in addresses if self._allowed.permits(host, address, port)]
        if addresses and not permitted:
            raise self._refusal(host, port, addresses[0])
        return permitted

    def _refusal(self, host: str, port: int, address: Address) -> SourceError:
        """Nobody is told to allow what a redirect asks for: whoever can answer in the ERP's place would get what only we can reach."""
        message = (
            f"{host} has the address {address}, which is not public, and {_VARIABLE} does not allow its port {port}"
        )
        if self._by_redirect:
            return SourceError(
                f"the ERP redirects elsewhere: {message}", hint="ask who runs the ERP why it leads there"
            )
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return SourceError(message, hint=f"if it is your ERP: export {_VARIABLE}={shlex.quote(where)}")


def resolve(host: str, port: int) -> list[Address]:
    """The host's addresses, in the order to try them.

    Raises TransientSourceError, also for an unknown name: the DNS may be at fault.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        said = exc.strerror if isinstance(exc, OSError) else "not a host name"
        raise TransientSourceError(
            f"the name {host} can't be resolved: {said}", hint=f"getent hosts {shlex.quote(host)}"
        ) from exc
    return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))


def _left(deadline: float, timeout: float | None) -> float:
    """Seconds for the next step. Raises httpcore's error for a timeout."""
    left = deadline - monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time for the whole download is over")
    return left if timeout is None else min(left, timeout)


class _TimedStream(httpcore.NetworkStream):
    """A connection whose steps all end by the deadline, however slowly the server sends."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline, timeout))
        return _TimedStream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
