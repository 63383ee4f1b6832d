"""Port mapping: a router that answers oddly, none at all, and the real miniupnpd in a namespace."""

import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from p2pfed.config import NodeConfig
from p2pfed.net import portmap
from p2pfed.net.portmap import Mapping, ask_mapping, default_gateway, drop_mapping
from tests.net.nat_nodes import Nodes
from tests.net.topology import PORT, Internet, Kind, refusal, run_in

Router = Callable[[bytes], bytes | None]


def answering(router: Router, monkeypatch: pytest.MonkeyPatch) -> tuple[Mapping | None, list[bytes]]:
    """What a NAT-PMP router makes of an ask for port 4001 on loopback, and what it was asked. UPnP is not there."""
    asked: list[bytes] = []
    monkeypatch.setattr(portmap, "_map_upnp", lambda port: None)
    monkeypatch.setattr(portmap, "PMP_WAITS_S", (0.05, 0.1))

    async def serve(udp: trio.socket.SocketType) -> None:
        while True:
            ask, source = await udp.recvfrom(64)
            asked.append(ask)
            if (answer := router(ask)) is not None:
                await udp.sendto(answer, source)

    async def main() -> Mapping | None:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            await udp.bind(("127.0.0.1", 0))
            monkeypatch.setattr(portmap, "PMP_PORT", udp.getsockname()[1])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, udp)
                mapping = await ask_mapping(4001, "127.0.0.1")
                if mapping is not None:
                    await drop_mapping(mapping, "127.0.0.1")
                nursery.cancel_scope.cancel()
        return mapping

    return trio.run(main), asked


def good(ask: bytes) -> bytes:
    if ask[1] == 0:
        return struct.pack(">BBHI4s", 0, 128, 0, 7, socket.inet_aton("203.0.113.7"))
    inner, _, lease_s = struct.unpack(">HHI", ask[4:])
    return struct.pack(">BBHIHHI", 0, 130, 0, 7, inner, 5001, lease_s)


def test_a_mapping_is_got_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    mapping, asked = answering(good, monkeypatch)
    assert mapping is not None
    assert (str(mapping.external), mapping.inner_port, mapping.by) == ("/ip4/203.0.113.7/tcp/5001", 4001, "NAT-PMP")
    assert asked[-1] == struct.pack(">BBHHHI", 0, 2, 0, 4001, 0, 0)


def test_a_lost_datagram_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[bytes] = []

    def losing(ask: bytes) -> bytes | None:
        if ask not in lost:
            lost.append(ask)
            return None
        return good(ask)

    mapping, _ = answering(losing, monkeypatch)
    assert mapping is not None


ODD: dict[str, Router] = {
    "silence": lambda ask: None,
    "empty": lambda ask: b"",
    "short": lambda ask: good(ask)[:-1],
    "long": lambda ask: good(ask) + b"\0",
    "refused": lambda ask: good(ask)[:2] + b"\0\2" + good(ask)[4:],
    "of another version": lambda ask: b"\2" + good(ask)[1:],
    "to another question": lambda ask: good(ask)[:1] + b"\x81" + good(ask)[2:],
    "no address": lambda ask: good(ask)[:8] + bytes(4) if ask[1] == 0 else good(ask),
    "multicast": lambda ask: good(ask)[:8] + b"\xe0\0\0\1" if ask[1] == 0 else good(ask),
    "port 0": lambda ask: good(ask) if ask[1] == 0 else good(ask)[:10] + b"\0\0" + good(ask)[12:],
    "another port": lambda ask: good(ask) if ask[1] == 0 else good(ask)[:8] + b"\1\1" + good(ask)[10:],
    "no lease": lambda ask: good(ask) if ask[1] == 0 else good(ask)[:12] + bytes(4),
}


@pytest.mark.parametrize("router", ODD.values(), ids=list(ODD))
def test_odd_answers_are_no_mapping(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answering(router, monkeypatch)[0] is None


def test_nobody_there_and_a_thread_that_fails_are_no_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(port: int) -> Mapping | None:
        raise Exception("Success")  # miniupnpc's way

    monkeypatch.setattr(portmap, "_map_upnp", fail)
    monkeypatch.setattr(portmap, "PMP_PORT", 9)
    assert trio.run(ask_mapping, 4001, "127.0.0.1") is None


def test_a_router_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    over = threading.Event()
    monkeypatch.setattr(portmap, "_map_upnp", lambda port: over.wait(20))
    monkeypatch.setattr(portmap, "MAP_S", 0.3)
    monkeypatch.setattr(portmap, "default_gateway", lambda: None)

    async def main() -> None:
        with trio.fail_after(5):
            assert await ask_mapping(4001) is None

    try:
        trio.run(main)
    finally:
        over.set()


def test_the_gateway_is_read_from_the_routing_table(tmp_path: Path) -> None:
    routes = tmp_path / "route"
    routes.write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n"
        "eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
        "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\n"
    )
    assert default_gateway(routes) == "192.168.1.1"
    routes.write_text("Iface\n")
    assert default_gateway(routes) is None
    assert default_gateway(tmp_path / "none") is None


ROUTER = """
flush ruleset
table inet guard {
  chain forward { type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "lan" accept
    ct status dnat accept
  }
  chain input { type filter hook input priority 0; iifname "wan" ct state new drop; }
  chain miniupnpd { }
  chain prerouting_miniupnpd { type nat hook prerouting priority -100; }
  chain postrouting_miniupnpd { type nat hook postrouting priority 110; }
  chain outward { type nat hook postrouting priority 100; oifname "wan" masquerade; }
}
"""
DAEMON = """
ext_ifname=wan
listening_ip=lan
enable_natpmp={pmp}
enable_upnp={upnp}
secure_mode=yes
upnp_table_name=guard
upnp_nat_table_name=guard
uuid=00000000-0000-0000-0000-000000000001
allow 1024-65535 192.168.0.0/16 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


@contextmanager
def miniupnpd(net: Internet, name: str, folder: Path, protocol: str) -> Iterator[None]:
    """On the router of `name`, in place of its rules."""
    router = f"{name}-router"
    run_in(net.inside(router), ["nft", "-f", "-"], ROUTER)
    config = folder / "miniupnpd.conf"
    config.write_text(DAEMON.format(pmp=_yes(protocol == "NAT-PMP"), upnp=_yes(protocol == "UPnP")))
    daemon = subprocess.Popen(
        [*net.inside(router), "miniupnpd", "-d", "-f", config, "-P", folder / "pid"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        daemon.kill()
        daemon.wait()


def _yes(on: bool) -> str:
    return "yes" if on else "no"


@pytest.mark.slow
@pytest.mark.skipif(refusal() is not None, reason=str(refusal()))
@pytest.mark.skipif(shutil.which("miniupnpd") is None, reason="miniupnpd is not installed")
@pytest.mark.parametrize("protocol", ["NAT-PMP", "UPnP"])
def test_a_real_router_lets_a_real_node_be_dialled(tmp_path: Path, protocol: str) -> None:
    """The verdict comes from dial-back through the mapping; a clean stop gives the port back."""
    with Internet() as net:
        nodes = Nodes(net, tmp_path)
        net.add("boot")
        net.add("node", Kind.PORT_RESTRICTED)
        with miniupnpd(net, "node", tmp_path, protocol):
            listen = (f"/ip4/0.0.0.0/tcp/{PORT}",)
            nodes.start("boot", "bootstrap", NodeConfig(listen=listen))
            boot = nodes.until("bootstrap", lambda: nodes.ask("boot"))["peer"]
            known = (f"/ip4/{net.public('boot')}/tcp/{PORT}/p2p/{boot}",)
            nodes.start("node", "node", NodeConfig(listen=listen, bootstrap=known, steps_max=4))

            def mapped() -> bool:
                found = nodes.ask("node")["reachability"]
                return bool(found["verdict"] == "mapped" and protocol in found["sentence"])

            nodes.until("mapped", mapped)
            mapping = "192.168."  # no rule of ours names the device
            assert mapping in run_in(net.inside("node-router"), ["nft", "list", "ruleset"])
            assert f"/ip4/{net.public('node')}/tcp/{PORT}" in " ".join(nodes.ask("node")["addresses"])
            nodes.ask("node", "stop")
            nodes.until(
                "given back", lambda: mapping not in run_in(net.inside("node-router"), ["nft", "list", "ruleset"])
            )
