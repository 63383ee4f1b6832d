"""mDNS on one interface, for one IP version: a socket, and who says what when (RFC 6762).

Ours are random names, so there is nothing to probe for: the record is announced at once, with a question. Packets are
sent to the group and read from it, never answered to one host alone. What arrives beyond the bounds a second is left
to the kernel to drop: a flood costs this node its LAN discovery, not its processor.
"""

import errno
import logging
import os
import random
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from p2pfed.net.mdns_record import META_SERVICE, SERVICE, Packet, concerns_us, parse, query, services_response

log = logging.getLogger("p2pfed.net")

PORT = 5353
GROUPS = {4: "224.0.0.251", 6: "ff02::fb"}
PACKET_BYTES_MAX = 9000
"""RFC 6762, section 17: the longest there is."""
PACKETS_PER_S_MAX = 500
"""More than a busy office LAN says, about anything."""
PARSED_BYTES_PER_S_MAX = 32 * 1024
"""Of packets about our service: seventy records. The worst packet takes 10 us a byte (measured)."""
SPEAK_AT_S = (0.0, 1.0, 3.0)
"""After the start: announcement and question; the later ones for who lost a packet or came up at the same time."""
ASK_INTERVAL_FIRST_S = 4.0
ASK_INTERVAL_MAX_S = 60.0
"""Questions go on, ever rarer: the answers find peers whose announcements were lost."""
ANSWER_DELAY_S = (0.02, 0.12)
"""Drawn anew for each answer, so that not all devices answer at the same instant."""
ANSWER_INTERVAL_S = 1.0
"""A record is not sent again within it, however often it is asked for."""
REOPEN_S = 5.0
"""After a socket could not be opened or broke: the network may be coming up."""
OWN_HEARD_S = 4.0
"""One's own packets come back within microseconds; after this, and three of them, they do not."""

INSTEAD = "until then, give nodes --bootstrap MULTIADDR"

_MULTICAST_ALL = {4: (socket.IPPROTO_IP, 49), 6: (getattr(socket, "IPPROTO_IPV6", 41), 29)}
"""Linux: set to 0, a socket hears only the interface it joined the group on. Python has no names for these."""


@dataclass(slots=True)
class LinkReport:
    """What happened on one link so far."""

    interface: str
    version: int
    """4 or 6."""
    sent: int = 0
    heard_own: int = 0
    heard: int = 0
    """Packets of others that were about our service."""
    problem: str | None = None
    """A sentence for people, once it is certain."""
    send_problem: str | None = None
    """Why the last packet could not be sent."""
    names: dict[str, None] = field(default_factory=dict)
    """Records of others, for the next question's known answers."""


class MdnsLink:
    """One interface and IP version. `record` None: listen and ask, announce nothing.

    Without a record it is the question that must come back: `own_name` among its known answers tells whose it is.
    """

    def __init__(
        self,
        interface: str,
        version: int,
        host: str,
        record: bytes | None,
        own_name: str,
        on_packet: Callable[["MdnsLink", Packet], None],
        on_problem: Callable[[str], None],
    ) -> None:
        self.report = LinkReport(interface, version)
        self.host = host
        """Own address there, which IPv4 sends from."""
        self._record = record
        self._own_name = own_name.lower()
        self._on_packet = on_packet
        self._on_problem = on_problem
        self._socket: trio.socket.SocketType | None = None
        self._asked = trio.Event()
        self._sent_at = -ANSWER_INTERVAL_S

    def __str__(self) -> str:
        return f"{self.report.interface} (IPv{self.report.version})"

    async def run(self) -> None:
        """Until cancelled. Never raises: what does not work is told to `on_problem`, and tried again."""
        failed_before = False
        while True:
            try:
                with self._opened() as self._socket:
                    failed_before = False
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._listen)
                        nursery.start_soon(self._speak)
                        nursery.start_soon(self._answer)
                        nursery.start_soon(self._expect_own)
            except* OSError as group:
                if failed_before:  # once alone, it was an interface that had just gone
                    self._fail(f"mDNS is off on {self}: {_words(group)}; tried again every {REOPEN_S:g} s")
                failed_before = True
            finally:
                self._socket = None
            await trio.sleep(REOPEN_S)

    async def say(self, packet: bytes) -> None:
        """To the group. Why it could not be sent is told later: an address may need a second until it can be used."""
        if self._socket is None:
            return
        try:
            await self._socket.sendto(packet, self._group)
            self.report.sent += 1
            self.report.send_problem = None
        except OSError as error:
            self.report.send_problem = _words(error)

    @property
    def _group(self) -> tuple[str, int] | tuple[str, int, int, int]:
        if self.report.version == 4:
            return GROUPS[4], PORT
        return GROUPS[6], PORT, 0, socket.if_nametoindex(self.report.interface)

    async def _speak(self) -> None:
        await trio.sleep(random.uniform(*ANSWER_DELAY_S))
        started = trio.current_time()
        for at in SPEAK_AT_S:
            await trio.sleep_until(started + at)
            if self._record is not None:
                await self._say_record(self._record)
            await self._ask()
        interval_s = ASK_INTERVAL_FIRST_S
        while True:
            await trio.sleep(interval_s)
            await self._ask()
            interval_s = min(2 * interval_s, ASK_INTERVAL_MAX_S)

    async def _ask(self) -> None:
        marker = (self._own_name,) if self._record is None else ()
        await self.say(query((*marker, *self.report.names)))

    async def _answer(self) -> None:
        """However many ask meanwhile, it is one answer."""
        while self._record is not None:
            await self._asked.wait()
            await trio.sleep(random.uniform(*ANSWER_DELAY_S))
            await trio.sleep_until(self._sent_at + ANSWER_INTERVAL_S)
            self._asked = trio.Event()
            await self._say_record(self._record)

    async def _say_record(self, record: bytes) -> None:
        self._sent_at = trio.current_time()
        await self.say(record)

    async def _expect_own(self) -> None:
        await trio.sleep(OWN_HEARD_S)
        if self.report.heard_own:
            return
        refused = os.strerror(errno.EPERM)  # by a firewall, most often
        if not self.report.sent and self.report.send_problem not in (None, refused):
            self._fail(f"mDNS on {self}: nothing can be sent: {self.report.send_problem}; {INSTEAD}")
            return
        what = "does not come back" if self.report.sent else "is refused"
        self._fail(
            f"mDNS on {self}: what is sent to {GROUPS[self.report.version]} {what}, so a firewall blocks UDP port "
            f"{PORT}: allow it in and out; {INSTEAD}"
        )

    async def _listen(self) -> None:
        assert self._socket is not None
        start, packets, parsed = trio.current_time(), 0, 0
        while True:
            data, source = await self._socket.recvfrom(PACKET_BYTES_MAX)
            if packets >= PACKETS_PER_S_MAX or parsed >= PARSED_BYTES_PER_S_MAX:
                await trio.sleep_until(start + 1.0)
            if trio.current_time() - start >= 1.0:
                start, packets, parsed = trio.current_time(), 0, 0
            packets += 1
            # RFC 6762, section 6.7: from another port, one wants an answer to oneself alone
            if source[1] == PORT and concerns_us(data):
                parsed += len(data)
                await self._take(data)

    async def _take(self, data: bytes) -> None:
        packet = parse(data)
        if packet is None:
            return
        if packet.asked:
            await self._note_question(packet)
        elif any(record.name == self._own_name for record in packet.records):
            self._note_own()
        elif packet.records:
            self.report.heard += 1
        self._on_packet(self, packet)

    async def _note_question(self, packet: Packet) -> None:
        if self._own_name in packet.known and self._record is None:
            self._note_own()
        host = f"{self._own_name.partition('.')[0]}.local."
        if {self._own_name, host} & packet.asked or (SERVICE in packet.asked and self._own_name not in packet.known):
            self._asked.set()
        if META_SERVICE in packet.asked and self._record is not None:
            await self.say(services_response())

    def _note_own(self) -> None:
        self.report.heard_own += 1
        self.report.problem = None

    def _fail(self, sentence: str) -> None:
        if self.report.problem != sentence:
            self.report.problem = sentence
            self._on_problem(sentence)

    def _opened(self) -> trio.socket.SocketType:
        """Bound to the group's address: what is sent to this host alone is not read."""
        version, index = self.report.version, socket.if_nametoindex(self.report.interface)
        channel = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(AttributeError, OSError):  # where it exists, other responders have it set as well
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if sys.platform == "linux":
                channel.setsockopt(*_MULTICAST_ALL[version], 0)
            if version == 4:
                channel.bind((GROUPS[4], PORT))
                _join_ip4(channel, index, self.host)
            else:
                channel.bind((GROUPS[6], PORT, 0, index))
                _join_ip6(channel, index)
            channel.setblocking(False)
            return trio.socket.from_stdlib_socket(channel)
        except OSError:
            channel.close()
            raise


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _join_ip4(channel: socket.socket, index: int, host: str) -> None:
    own = socket.inet_aton(host)
    group = socket.inet_aton(GROUPS[4])
    channel.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("=4s4si", group, own, index))
    channel.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", group, own, index))
    channel.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    channel.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)


def _join_ip6(channel: socket.socket, index: int) -> None:
    group = socket.inet_pton(socket.AF_INET6, GROUPS[6])
    channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("@I", index))
    channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
    channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
