"""An internet of network namespaces: a bridge with public addresses, and devices on it or behind routers of five kinds.

Every name carries this process's id, and all go when the block ends. Needs root on Linux with `ip` and `nft`.
"""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

NAME = "p2pfed-nat"
PUBLIC = "11.0.0"
"""Global as Python's ipaddress sees it, and nowhere to be reached from here: the namespaces have no way out."""
PORT = 4001


class Kind(StrEnum):
    """What stands between a device and the others, by what it does to TCP."""

    PUBLIC = "public"
    FULL_CONE = "full-cone"
    """One outer port for all; once the device has dialled anybody, anybody may dial that port."""
    PORT_RESTRICTED = "port-restricted"
    """One outer port for all; only those the device itself dials get in, at the moment it dials."""
    SYMMETRIC = "symmetric"
    """Another outer port for each it dials."""
    NO_INBOUND = "no-inbound"
    """A public address, and a firewall that drops whatever wants to begin a connection, even while one is dialled."""


CLOSED = """
table ip guard {
  chain forward { type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "lan" accept
    ct status dnat accept
  }
  chain input { type filter hook input priority 0; iifname "wan" ct state { new, invalid } drop; }
}
"""
"""Of a router: nothing begins from outside, and nobody is told so (a reset would give a mapping away)."""

RULES = {
    Kind.FULL_CONE: CLOSED
    + """
table ip nat {
  set opened { type inet_service; size 1024; flags dynamic,timeout; timeout 10m; }
  chain inward { type nat hook prerouting priority -100; iifname "wan" tcp dport @opened dnat to %(inner)s; }
  chain outward { type nat hook postrouting priority 100;
    oifname "wan" meta l4proto tcp update @opened { tcp sport }
    oifname "wan" masquerade
  }
}
""",
    Kind.PORT_RESTRICTED: CLOSED
    + """
table ip nat {
  chain outward { type nat hook postrouting priority 100; oifname "wan" masquerade; }
}
""",
    Kind.SYMMETRIC: CLOSED
    + """
table ip nat {
  chain outward { type nat hook postrouting priority 100;
    oifname "wan" meta l4proto tcp masquerade to :20000-60000 fully-random
    oifname "wan" masquerade
  }
}
""",
    Kind.NO_INBOUND: """
table ip guard {
  chain input { type filter hook input priority 0; iifname "wan" tcp flags & (syn | ack) == syn drop; }
}
""",
}


def refusal() -> str | None:
    """Why namespaces cannot be made here; None where they can."""
    if sys.platform != "linux":
        return f"network namespaces are Linux's, this is {sys.platform}"
    for command in ("ip", "nft"):
        if shutil.which(command) is None:
            return f"the command {command} is missing"
    probe = f"{NAME}-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        return f"namespaces may not be made: {made.stderr.strip()}"
    try:
        for rules in RULES.values():
            _nft(probe, rules % {"inner": "192.168.0.10"})
            _nft(probe, "flush ruleset")
    except RuntimeError as error:
        return f"nft cannot make these routers: {error}"
    finally:
        _ip("netns", "del", probe)
        _sweep()
    return None


class Internet:
    """`with Internet() as net: net.add("a", Kind.SYMMETRIC)`; `net.inside("a")` before a command runs it there."""

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._count = 0
        self.kinds: dict[str, Kind] = {}
        self._public: dict[str, str] = {}

    def __enter__(self) -> Self:
        with self._undo as undo:
            self._namespace(undo, "hub")
            _ip("-n", self._name("hub"), "link", "add", "bridge", "type", "bridge")
            _ip("-n", self._name("hub"), "link", "set", "bridge", "up")
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()  # while their namespaces have names: without one nobody finds them
        self._undo.close()

    def add(self, name: str, kind: Kind = Kind.PUBLIC) -> None:
        """A device; behind a router of its own where the kind has one."""
        self._count += 1
        self.kinds[name] = kind
        public = self._public[name] = f"{PUBLIC}.{self._count}"
        self._namespace(self._undo, name)
        if kind in (Kind.PUBLIC, Kind.NO_INBOUND):
            self._plug(name, public)
        else:
            self._namespace(self._undo, f"{name}-router")
            self._plug(f"{name}-router", public)
            self._lan(name, f"192.168.{self._count}")
        if kind in RULES:
            box = name if kind is Kind.NO_INBOUND else f"{name}-router"
            _nft(self._name(box), RULES[kind] % {"inner": f"192.168.{self._count}.10"})

    def inside(self, name: str) -> list[str]:
        return ["ip", "netns", "exec", self._name(name)]

    def public(self, name: str) -> str:
        """The address others see."""
        return self._public[name]

    def kill(self) -> None:
        """Every process in these namespaces."""
        for name in [*self.kinds, *(f"{name}-router" for name in self.kinds)]:
            listed = subprocess.run(["ip", "netns", "pids", self._name(name)], capture_output=True, text=True)
            for word in listed.stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(word), signal.SIGKILL)

    def _name(self, name: str) -> str:
        return f"{NAME}-{os.getpid()}-{name}"

    def _namespace(self, undo: ExitStack, name: str) -> None:
        _ip("netns", "add", self._name(name))
        undo.callback(_ip, "netns", "del", self._name(name))
        _ip("-n", self._name(name), "link", "set", "lo", "up")

    def _plug(self, name: str, address: str) -> None:
        """Into the bridge."""
        port = f"p{self._count}"
        _ip(
            "-n",
            self._name("hub"),
            "link",
            "add",
            port,
            "type",
            "veth",
            "peer",
            "name",
            "wan",
            "netns",
            self._name(name),
        )
        _ip("-n", self._name("hub"), "link", "set", port, "master", "bridge", "up")
        _ip("-n", self._name(name), "address", "add", f"{address}/24", "dev", "wan")
        _ip("-n", self._name(name), "link", "set", "wan", "up")

    def _lan(self, name: str, prefix: str) -> None:
        router = self._name(f"{name}-router")
        _ip("-n", router, "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", self._name(name))
        _ip("-n", router, "address", "add", f"{prefix}.1/24", "dev", "lan")
        _ip("-n", router, "link", "set", "lan", "up")
        _ip("-n", self._name(name), "address", "add", f"{prefix}.10/24", "dev", "eth0")
        _ip("-n", self._name(name), "link", "set", "eth0", "up")
        _ip("-n", self._name(name), "route", "add", "default", "via", f"{prefix}.1")
        run_in(["ip", "netns", "exec", router], ["sysctl", "-qw", "net.ipv4.ip_forward=1"])


def _sweep() -> None:
    """What a run left that was killed outright: the name tells whose it was."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    for row in listed.stdout.splitlines():
        name = row.split()[0]
        owner, _, _ = name.removeprefix(f"{NAME}-").partition("-")
        if name.startswith(f"{NAME}-") and not Path(f"/proc/{owner}").exists():
            _ip("netns", "del", name)


def run_in(inside: list[str], words: list[str], stdin: str | None = None) -> str:
    """Its output. Raises RuntimeError with what the command says."""
    done = subprocess.run([*inside, *words], input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _nft(namespace: str, rules: str) -> None:
    run_in(["ip", "netns", "exec", namespace], ["nft", "-f", "-"], rules)


def _ip(*words: str) -> None:
    run_in([], ["ip", *words])
