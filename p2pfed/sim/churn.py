"""Carries out `scenario.Churn`: nodes crash and come back, each by a stream of its own."""

import random

from p2pfed.core.messages import Role
from p2pfed.sim.network import Network
from p2pfed.sim.scenario import Scenario


class Coming:
    """The ups and downs of all nodes of a scenario. It adds its events to the network as time goes on."""

    def __init__(self, scenario: Scenario, network: Network) -> None:
        self._churn = scenario.churn
        self._network = network
        if self._churn.down_share == 0.0:
            return
        hit = dict.fromkeys(self._churn.nodes)
        for node in scenario.nodes:
            if node.name in hit or (not hit and node.role is not Role.BOOTSTRAP):
                rng = random.Random(f"{scenario.seed}/{node.name}/churn")
                begin = max(self._churn.from_s, node.start_s)
                if rng.random() < self._churn.down_share:  # the share holds from the beginning on
                    network.at(begin, self._down, node.name, rng)
                else:
                    network.at(begin + self._up_s(rng), self._down, node.name, rng)

    def _up_s(self, rng: random.Random) -> float:
        share = self._churn.down_share
        return rng.expovariate(share / (self._churn.outage_s * (1.0 - share)))

    def _down(self, name: str, rng: random.Random) -> None:
        outage_s, up_s = rng.expovariate(1.0 / self._churn.outage_s), self._up_s(rng)
        if self._network.now > self._churn.until_s:
            return
        self._network.crash(name, self._churn.power_loss)
        self._network.at(self._network.now + outage_s, self._network.restart, name, self._churn.keep)
        self._network.at(self._network.now + outage_s + up_s, self._down, name, rng)
