"""Leaves out two parts of libp2p 0.8.1 that p2pfed never runs; import it before anything of libp2p.

`import libp2p` always loads its AutoTLS client (which registers a host name with a public service, and
brings in requests, httpx and rich) and its mDNS (which loads zeroconf and blocks the event loop for 1.6 s;
`net.discovery` does without). A placeholder in sys.modules saves 16 MB of 87 and a third of the import time.
Nothing breaks where libp2p was imported before: then it is merely as large as ever.
"""

import sys
from types import ModuleType
from typing import NoReturn

OMITTED = {
    "libp2p.security.tls.autotls.acme": ("ACMEClient", "compute_b36_peer_id"),
    "libp2p.security.tls.autotls.broker": ("BrokerClient",),
    "libp2p.discovery.mdns.mdns": ("MDNSDiscovery", "create_mdns_discovery"),
}


def omit() -> None:
    for module_name, names in OMITTED.items():
        if module_name not in sys.modules:
            module = ModuleType(module_name, "left out by p2pfed.net.slim")
            for name in names:
                setattr(module, name, _placeholder(name))
            sys.modules[module_name] = module


def _placeholder(name: str) -> type:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise RuntimeError(f"libp2p's {name} is left out by p2pfed.net.slim")

    return type(name, (), {"__new__": refuse})


omit()
