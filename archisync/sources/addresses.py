"""Where an HTTP source may connect: to public addresses, and to others only when the operator names them.

Otherwise a template's host, a redirect or a DNS answer could make a worker read what only it can reach: a cloud's metadata service, a
database's console, another container. A name is resolved once, and the address that is connected to is the one that is checked. So
decimal, octal or hexadecimal notations, IPv4 inside IPv6 and a DNS that changes its answer do not get around it.
"""

import ipaddress
import shlex
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self, TypeAlias

import httpcore

from archisync.base.errors import ConfigurationError, SourceError, TransientSourceError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_VARIABLE = "ARCHISYNC_HTTP_ALLOW_PRIVATE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowed:
    """What the operator allows besides public addresses: host names, as in the template, and networks."""

    everything: bool = False
    hosts: frozenset[str] = frozenset()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """`yes`, or a list of hosts, addresses and CIDRs. Raises ConfigurationError."""
        items = text.lower().replace(",", " ").split()
        if items == ["yes"]:
            return cls(everything=True)
        hosts, networks = set(), []
        for item in items:
            try:
                networks.append(ipaddress.ip_network(item, strict=False))
            except ValueError:
                if "/" in item or ":" in item or item in ("yes", "no", "*"):
                    raise ConfigurationError(
                        f"{_VARIABLE} has {item.rpartition('@')[2][:80]!a}, which is no host, address or CIDR",
                        hint="for example erp.example,10.1.0.0/16 — or yes alone, for every address",
                    ) from None
                hosts.add(item)
        return cls(hosts=frozenset(hosts), networks=tuple(networks))

    def permits(self, host: str, address: Address) -> bool:
        inner = innermost(address)
        if self.everything or host.lower() in self.hosts:
            return True
        return is_public(inner) or any(inner in network or address in network for network in self.networks)


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
    return address.is_global and not address.is_multicast and not address.is_reserved


class GuardedBackend(httpcore.NetworkBackend):
    """Resolves, checks and connects in one step. Nothing continues after `deadline` (monotonic seconds)."""

    def __init__(self, allowed: Allowed, deadline: float) -> None:
        self._allowed = allowed
        self._deadline = deadline
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
        for address in self._permitted(host, resolve(host, port)):
            try:
                stream = self._backend.connect_tcp(
                    str(address), port, _left(self._deadline, timeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
                continue
            return _TimedStream(stream, self._deadline)
        raise failure

    def _permitted(self, host: str, addresses: list[Address]) -> list[Address]:
        permitted = [address for address in addresses if self._allowed.permits(host, address)]
        if addresses and not permitted:
            raise SourceError(
                f"{host} has the address {addresses[0]}, which is not public and not in {_VARIABLE}",
                hint=f"if it is your ERP: export {_VARIABLE}={addresses[0]}",
            )
        return permitted


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
