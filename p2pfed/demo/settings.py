"""What the demo trains, for how long, and on what: chosen by measurement for two cores and a few minutes.

The number of steps is a constant: a slow machine takes longer, it does not silently learn less.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from p2pfed.config import AdapterConfig, GossipConfig, ModelConfig, NetworkConfig, TrainingConfig
from p2pfed.demo.trades import DATA_FOLDER, TRADES

STEPS = 40
"""Local steps of each node."""
ANSWER_TOKENS_MAX = 36
"""Of a written verdict: 20 of feedback, 7 of mark, score and end, and room to overrun."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """All that a smaller or other demo would change."""

    model: ModelConfig = field(
        default_factory=lambda: ModelConfig("package:smollm2-135m", prompt="p2pfed-compact/1", sequence_tokens_max=320)
    )
    adapter: AdapterConfig = field(default_factory=lambda: AdapterConfig(rank=16, alpha=32.0))
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(learning_rate=4e-3, batch_rows=1, warmup_steps=4)
    )
    gossip: GossipConfig = field(default_factory=lambda: GossipConfig(steps_between_swaps=4, swap_interval_s=1.0))
    steps: int = STEPS
    trades: tuple[str, ...] = TRADES
    data: Path = DATA_FOLDER
    answer_tokens_max: int = ANSWER_TOKENS_MAX

    def network(self, run: str, seed: int) -> NetworkConfig:
        """`run` makes every demo a network of its own: two at once on one machine must not mix by mDNS."""
        return NetworkConfig(
            name=f"demo-{run}",
            model=self.model,
            adapter=replace(self.adapter, seed=seed),
            training=self.training,
            gossip=self.gossip,
        )
