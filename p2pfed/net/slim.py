"""Leaves out what p2pfed never runs of libp2p 0.8.1; import it before anything of libp2p.

`import libp2p` always loads QUIC, WebSocket, TLS, pubsub, the peer store databases, mDNS, UPnP, an AutoTLS client that
registers a host name with a public service, and what those need (aioquic, OpenSSL, sqlite, requests): 35 of 88 MiB and
a third of the time. A placeholder in sys.modules stands for each. A name taken from one is a class that refuses
to be made, so that type annotations and isinstance go on as before.
Nothing breaks where libp2p was imported before: then it is merely as large as ever.
"""

import importlib.util
import sys
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import NoReturn

OMITTED = (
    "libp2p.bitswap",
    "libp2p.discovery.bootstrap.bootstrap",
    "libp2p.discovery.mdns.mdns",
    "libp2p.discovery.upnp.upnp",
    "libp2p.host.routed_host",
    "libp2p.metrics.swarm",
    "libp2p.peer.persistent",
    "libp2p.rcmgr.prometheus_exporter",
    "libp2p.security.secio.transport",
    "libp2p.security.tls.autotls.acme",
    "libp2p.security.tls.autotls.broker",
    "libp2p.security.tls.transport",
    "libp2p.transport.quic.config",
    "libp2p.transport.quic.connection",
    "libp2p.transport.quic.exceptions",
    "libp2p.transport.quic.listener",
    "libp2p.transport.quic.stream",
    "libp2p.transport.quic.transport",
    "libp2p.transport.quic.utils",
    "libp2p.transport.websocket.transport",
    "multiaddr.resolvers",
)
"""Modules, with all they would import."""
OPENED = (
    "libp2p.discovery",
    "libp2p.kad_dht",
    "libp2p.pubsub",
    "libp2p.relay",
    "libp2p.relay.circuit_v2",
    "libp2p.security.tls",
    "libp2p.transport.quic",
    "libp2p.transport.websocket",
)
"""Packages whose own __init__ is left out; what lies inside can still be imported (message formats, small helpers)."""

MADE = MappingProxyType({"libp2p.metrics.swarm": "SwarmEvent", "multiaddr.resolvers": "DNSResolver"})
"""Of these an object is made, for every connection or swarm, and never used: addresses are resolved by us."""


class _Omitted(ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(f"{self.__name__} is left out by p2pfed.net.slim and has no {name}")
        placeholder = _placeholder(name)
        setattr(self, name, placeholder)
        return placeholder


def omit() -> None:
    for name in OMITTED:
        if name not in sys.modules:
            sys.modules[name] = _Omitted(name, "left out by p2pfed.net.slim")
            if name in MADE:
                setattr(sys.modules[name], MADE[name], SimpleNamespace)
    spec = importlib.util.find_spec("libp2p")
    root = list(spec.submodule_search_locations or ()) if spec is not None else []
    for name in OPENED:
        if name not in sys.modules:
            module = _Omitted(name, "opened by p2pfed.net.slim")
            module.__path__ = [f"{folder}/{'/'.join(name.split('.')[1:])}" for folder in root]
            sys.modules[name] = module


class _Refused(type):
    """Constants of a class that was left out are taken while others are imported."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _placeholder(name)


def _placeholder(name: str) -> type:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise RuntimeError(f"libp2p's {name} is left out by p2pfed.net.slim")

    # An exception, since some are named in except clauses, which take nothing else: not even to pass by.
    return _Refused(name, (Exception,), {"__new__": refuse})


omit()
