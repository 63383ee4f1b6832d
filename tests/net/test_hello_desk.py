"""Several networks on one transport: who answers a hello, and that the end of one link leaves the others alone."""

import dataclasses
import random

import trio

from p2pfed.config import ModelConfig, NetworkConfig
from p2pfed.core.events import Report, Started
from p2pfed.core.membership import MembershipSettings
from p2pfed.core.messages import PROTOCOL_VERSION, Hello, Role
from p2pfed.core.peer import PeerSettings, PeerState
from p2pfed.net.driver import Driver
from p2pfed.net.hello_desk import HELLO_PROTOCOL, HelloDesk
from p2pfed.net.memory import MemoryNetwork
from p2pfed.net.session import exchange_hellos
from p2pfed.ports import Encoding, Transport

A = NetworkConfig("a", ModelConfig("vector"))
B = NetworkConfig("b", ModelConfig("another base"), gossip=dataclasses.replace(A.gossip, clip=0.0))
STORY_S = 10.0


def hello_of(network: NetworkConfig) -> Hello:
    return Hello(
        version=PROTOCOL_VERSION,
        network_id=network.network_id,
        network=network.fields(),
        fingerprint=(),
        role=Role.NODE,
        encoding=Encoding.INT4,
        instance=1,
        name="",
        addresses=(),
        time_s=0.0,
    )


class Member:
    """One network on a transport; it seeks nobody."""

    def __init__(self, network: NetworkConfig, transport: Transport, desk: HelloDesk) -> None:
        self.hello = dataclasses.replace(hello_of(network), role=Role.OBSERVER)
        settings = PeerSettings(membership=MembershipSettings(neighbours_target=0))
        self.state = PeerState(self.hello, transport.peer, settings, random.Random(1))
        self.reports: list[Report] = []
        self.driver = Driver(
            transport,
            network.network_id,
            on_report=self.reports.append,
            on_remember=lambda _: None,
            wall_clock=lambda: 0.0,
            desk=desk,
        )

    async def run(self) -> None:
        await self.driver.run(self.state, self.hello, [Started()])


def test_the_network_asked_about_answers_else_the_nearest() -> None:
    world = MemoryNetwork(seed=1)
    server, client = world.transport(), world.transport()
    desk = HelloDesk(server)
    members = [Member(network, server, desk) for network in (A, B)]

    async def main() -> None:
        with trio.fail_after(STORY_S):
            async with server.running(), client.running(), trio.open_nursery() as nursery:
                for member in members:
                    nursery.start_soon(member.run)

                async def ask(network: NetworkConfig) -> Hello:
                    link = await client.open(server.peer, server.addresses()[0], HELLO_PROTOCOL)
                    return await exchange_hellos(link, hello_of(network))

                assert (await ask(B)).network_id == B.network_id
                assert (await ask(A)).network_id == A.network_id
                near_b = dataclasses.replace(B, training=dataclasses.replace(B.training, batch_rows=7))
                assert (await ask(near_b)).network_id == B.network_id
                while not any(each.kind == "peer-refused" for each in members[1].reports):  # noqa: ASYNC110
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()

    trio.run(main)
    refused = [
        [each.fields["difference"] for each in member.reports if each.kind == "peer-refused"] for member in members
    ]
    assert refused == [[], ["training.batch_rows is 7 there and 2 here"]]


def test_a_link_that_ends_does_not_cut_another_networks_link_to_the_same_peer() -> None:
    world = MemoryNetwork(seed=1)
    transports = [world.transport() for _ in range(2)]
    desks = [HelloDesk(each) for each in transports]
    members = {
        (network.name, side): Member(network, transports[side], desks[side]) for network in (A, B) for side in (0, 1)
    }

    async def main() -> None:
        with trio.fail_after(STORY_S):
            async with transports[0].running(), transports[1].running(), trio.open_nursery() as nursery:
                for member in members.values():
                    nursery.start_soon(member.run)
                for name in ("a", "b"):
                    driver = members[name, 0].driver
                    nursery.start_soon(driver._dial, transports[1].peer, (transports[1].addresses()[0],))
                while not all(each.driver.sessions for each in members.values()):  # noqa: ASYNC110
                    await trio.sleep(0.01)
                for session in members["a", 0].driver.sessions.values():
                    session.close("enough")
                while members["a", 0].driver.sessions or members["a", 1].driver.sessions:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                await trio.sleep(0.1)
                assert members["b", 0].driver.sessions and members["b", 1].driver.sessions
                nursery.cancel_scope.cancel()

    trio.run(main)
