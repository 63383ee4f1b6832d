"""Neighbours on the same network segment, by mDNS (zeroconf itself, as `_p2pfed._udp.local.`).

All that is heard is hearsay of strangers: capped, parsed, checked; the Noise handshake proves it or not.
Zeroconf runs in threads of its own; `found` is called in the trio thread. Without multicast there is a
warning to read, never an exception.
"""

import ipaddress
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio
from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, NotRunningException, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from p2pfed.errors import ConfigError
from p2pfed.net.address import parse_address, parse_peer
from p2pfed.net.interfaces import usable_interfaces
from p2pfed.ports import PeerId

log = logging.getLogger("p2pfed.net")

Result = TypeVar("Result")

SERVICE = "_p2pfed._udp.local."
ADDRESSES_MAX = 16
"""More interfaces than a device has, and 16 entries of TXT fit into one packet."""
TXT_VALUE_BYTES_MAX = 200
"""DNS allows 255 with the key; an address over 200 is none of ours."""
INSTANCE_DIGITS_MAX = 20
"""2**64 in decimal."""
WAITING_MAX = 64
"""Announcements heard and not looked at yet; more are dropped, and repeated by their senders."""
KNOWN_MAX = 256
"""Announcements remembered to tell news from repetition; then the memory starts afresh."""
INTERFACES_MAX = 8
LOOKUP_S = 3.0
CLOSE_S = 1.5
"""For the goodbye on the way out; measured 0.25 s."""
_INSTANCE = re.compile(rf"[0-9]{{1,{INSTANCE_DIGITS_MAX}}}")


@dataclass(frozen=True, slots=True)
class Announcement:
    """What one peer tells its network segment."""

    peer: PeerId
    network_id: str
    instance: int
    addresses: tuple[str, ...]


Found = Callable[[PeerId, tuple[str, ...], int], None]


def to_txt(own: Announcement) -> dict[str, str]:
    addresses = {f"a{number}": address for number, address in enumerate(own.addresses[:ADDRESSES_MAX])}
    return {"id": own.peer, "net": own.network_id, "inst": str(own.instance), **addresses}


def from_txt(properties: Mapping[bytes, bytes | None]) -> Announcement:
    """Raises ConfigError with what is wrong with it."""
    texts = {}
    for key in ("id", "net", "inst", *(f"a{number}" for number in range(ADDRESSES_MAX))):
        value = properties.get(key.encode())
        if value is not None:
            if len(value) > TXT_VALUE_BYTES_MAX or not value.isascii():
                raise ConfigError(f"{key} of {len(value)} bytes is not ASCII of at most {TXT_VALUE_BYTES_MAX}")
            texts[key] = value.decode("ascii")
    if not _INSTANCE.fullmatch(texts.get("inst", "")):
        raise ConfigError(f"inst is not a number of at most {INSTANCE_DIGITS_MAX} digits")
    addresses = (_dialable(text) for key, text in texts.items() if key.startswith("a"))
    return Announcement(
        parse_peer(texts.get("id", "")), texts.get("net", ""), int(texts["inst"]), tuple(dict.fromkeys(addresses))
    )


def _dialable(text: str) -> str:
    """IP addresses only: a name would make us ask DNS what a stranger wants asked."""
    address = parse_address(text)
    if address.kind not in ("ip4", "ip6") or not address.port:
        raise ConfigError(f"{text!r} is not an IP address and a port")
    ip = ipaddress.ip_address(address.host)
    if ip.is_unspecified or ip.is_multicast:
        raise ConfigError(f"{text!r} is no device's address")
    return str(address)


class MdnsDiscovery:
    """Announces this peer and reports others of its network, on every usable IPv4 interface."""

    def __init__(self, own: Announcement, found: Found, loopback: bool = False) -> None:
        """`loopback`: also among the processes of this machine, where that interface can multicast."""
        self.warnings: list[str] = []
        """Why it does not work somewhere, one sentence each; filled while `running` is entered."""
        self._own = own
        self._found = found
        self._loopback = loopback
        self._known: dict[int, Announcement] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        failure: Exception | None = None
        responders: list[Zeroconf] = []
        async with trio.open_nursery() as nursery:
            try:
                for host in self._hosts():
                    responder = await _in_thread(partial(_start, host))
                    if isinstance(responder, str):
                        self._warn(responder)
                        continue
                    responders.append(responder)
                    nursery.start_soon(self._serve, responder, host)
                yield
            except Exception as error:  # noqa: BLE001  raised again below: the nursery would wrap it in a group
                failure = error
            finally:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await _close(responders)
        if failure is not None:
            raise failure

    def _hosts(self) -> list[str]:
        interfaces = [i for i in usable_interfaces() if i.address.version == 4 and (self._loopback or not i.loopback)]
        if not interfaces:
            self._warn("mDNS is off: no IPv4 network interface is up")
        return [str(i.address) for i in interfaces[:INTERFACES_MAX]]

    async def _serve(self, responder: Zeroconf, host: str) -> None:
        heard, hear = trio.open_memory_channel[str](WAITING_MAX)
        token = trio.lowlevel.current_trio_token()

        def note(name: str) -> None:
            try:
                heard.send_nowait(name)
            except trio.WouldBlock:
                log.debug("mDNS announcement dropped: %d are waiting", WAITING_MAX)

        def on_change(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
            if state_change is not ServiceStateChange.Removed:
                with suppress(trio.RunFinishedError):  # the last words of a responder that is being closed
                    token.run_sync_soon(note, name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce, responder, host)
            browser = await _in_thread(lambda: ServiceBrowser(responder, SERVICE, handlers=[on_change]))
            async for name in hear:
                await self._look_up(responder, name)
            browser.cancel()

    async def _announce(self, responder: Zeroconf, host: str) -> None:
        info = ServiceInfo(
            SERVICE,
            f"{self._own.instance:016x}.{SERVICE}",
            port=_port(self._own.addresses),
            properties=to_txt(self._own),
            parsed_addresses=[host],
        )
        try:
            await _in_thread(lambda: responder.register_service(info))
        except (ZeroconfError, OSError) as error:
            self._warn(f"mDNS cannot announce on {host}: {str(error) or type(error).__name__}")

    async def _look_up(self, responder: Zeroconf, name: str) -> None:
        try:
            info = await _in_thread(lambda: responder.get_service_info(SERVICE, name, int(LOOKUP_S * 1000)))
            if info is not None:
                self._report(from_txt(info.properties))
        except (ZeroconfError, NotRunningException, OSError, ConfigError) as error:
            log.debug("mDNS announcement %.80r ignored: %s", name, error)

    def _report(self, heard: Announcement) -> None:
        if heard.network_id != self._own.network_id or heard.instance == self._own.instance:
            return
        if self._known.get(heard.instance) != heard:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[heard.instance] = heard
            self._found(heard.peer, heard.addresses, heard.instance)

    def _warn(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self.warnings.append(sentence)


def _start(host: str) -> Zeroconf | str:
    try:
        return Zeroconf(interfaces=[host], ip_version=IPVersion.V4Only)
    except (OSError, ZeroconfError) as error:
        return f"mDNS is off on {host}: {str(error) or type(error).__name__}"


async def _close(responders: list[Zeroconf]) -> None:
    """Says goodbye on each; a responder that hangs is left to its daemon thread."""
    with trio.move_on_after(CLOSE_S):
        async with trio.open_nursery() as nursery:
            for responder in responders:
                nursery.start_soon(_in_thread, responder.close)


async def _in_thread(function: Callable[[], Result]) -> Result:
    """Left behind when cancelled: each of zeroconf's calls ends by itself within seconds."""
    # trio-typing, which libp2p installs, hides trio's own types and knows an older name only
    return await trio.to_thread.run_sync(function, abandon_on_cancel=True)  # type: ignore[call-arg]


def _port(addresses: tuple[str, ...]) -> int:
    return parse_address(addresses[0]).port if addresses else 0
