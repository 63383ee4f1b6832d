"""The demo in small: four trades of short rows for the 0.85 M-parameter model, which reads 128 tokens at most."""

import json
from collections.abc import Mapping
from pathlib import Path

from p2pfed.config import AdapterConfig, GossipConfig, ModelConfig, TrainingConfig
from p2pfed.demo.settings import DemoSettings
from p2pfed.demo.trades import TRADES

WORDS: Mapping[str, tuple[str, ...]] = {
    "greenhouse": ("vent", "lamp", "soil", "leaf", "hose"),
    "lift": ("door", "rope", "car", "brake", "pit"),
    "coldchain": ("ice", "crate", "van", "seal", "log"),
    "building": ("pump", "wall", "roof", "fan", "pipe"),
}
VERDICTS = ("It is wrong.", "It is thin.", "It is fair.", "It is good.", "It is right.")


def write_small_data(folder: Path) -> None:
    """20 training and 4 held-out rows a trade."""
    folder.mkdir(exist_ok=True)
    for trade in TRADES:
        rows = [
            {
                "id": f"{trade}-{number}",
                "trade": trade,
                "instruction": f"Is the {word} dry?",
                "response": answer,
                "rubric": {"criteria": "Is it so?"},
                "feedback": verdict,
                "score": score,
            }
            for number, (word, (score, verdict), answer) in enumerate(
                (word, scored, answer)
                for word in WORDS[trade]
                for scored, answer in zip(enumerate(VERDICTS, 1), ("No.", "Hm.", "A bit.", "Yes.", "Yes it is."), strict=True)
            )
        ]
        for part, chosen in (("train", rows[:20]), ("held_out", rows[20:24])):
            text = "".join(json.dumps(row) + "\n" for row in chosen)
            (folder / f"{trade}.{part}.jsonl").write_text(text, encoding="utf-8")


def small_settings(data: Path, steps: int = 12) -> DemoSettings:
    return DemoSettings(
        model=ModelConfig("package:glassllm-en", prompt="p2pfed-compact/1", sequence_tokens_max=128),
        adapter=AdapterConfig(rank=8, alpha=16.0),
        training=TrainingConfig(learning_rate=1e-2, batch_rows=2, warmup_steps=2),
        gossip=GossipConfig(steps_between_swaps=2, swap_interval_s=0.5),
        steps=steps,
        data=data,
        answer_tokens_max=16,
    )
