"""What a proxy of ours says about a request: who asked, by which name, over TLS or not.

`X-Forwarded-For`, `-Host` and `-Proto` are believed from the addresses in `[gateway] trusted_proxies`
alone; from anybody else they are not there. Which names are known, and what is let through, is auth.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

UNIX = "unix"  #: whoever reaches the Unix socket, which has no address
MAX_HOPS = 20  # addresses that are looked at; what is farther away has not been near us
_IPV6_OF_ONE = 64  # bits: a household has so many addresses that counting each counts nothing


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked, and how."""

    client: str  #: an address, or "unix"
    host: str  #: as the Host header would say it
    scheme: str  #: http or https; empty: nobody said


class Proxies:
    """Those that are believed."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._unix = UNIX in trusted
        self._networks = [ip_network(text) for text in trusted if text != UNIX]

    def read(self, environ: dict[str, Any]) -> Asked:
        """What is to be believed of a request."""
        peer = environ.get("REMOTE_ADDR") or UNIX
        host = environ.get("HTTP_HOST", "")
        if not self._trusts(peer):
            return Asked(peer, host, "")
        scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").strip().lower()
        said = environ.get("HTTP_X_FORWARDED_HOST", "").strip()
        return Asked(self._client(peer, environ), said or host, scheme)

    def _client(self, peer: str, environ: dict[str, Any]) -> str:
        """From the near end, each proxy's word as far as it is one of ours: the first that is not."""
        found = peer
        hops = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")
        for hop in reversed(hops[-MAX_HOPS:]):
            address = _address(hop.strip())
            if address is None:
                break
            found = str(address)
            if not self._trusts(found):
                break
        return found

    def _trusts(self, peer: str) -> bool:
        if peer == UNIX:
            return self._unix
        address = _address(peer) if self._networks else None
        return address is not None and any(address in network for network in self._networks)


def counted_as(client: str) -> str:
    """Who shares a count of failed logins: an address, and of IPv6 its network."""
    address = _address(client)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _IPV6_OF_ONE), strict=False))
    return client


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found
