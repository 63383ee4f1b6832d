"""The 0.85 M parameter Mistral of glassllm, converted once a test run, and a fresh learner on it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

SENTENCES = (
    "The answer names the valve that sticks and says why the pressure falls.",
    "It leaves out the first safe step, and a reader would open the panel too soon.",
    "The numbers are right, but the order of the steps is not.",
    "A clear and kind message that tells the tenant what will happen and when.",
    "It says nothing about the cold room, which was the question.",
    "The advice is dangerous because the brake is released before the car is held.",
    "Every reading is explained and the cause follows from them.",
    "The tone is rude and half of the question is not answered.",
)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Weights are float32 here, also where the processor has units for bfloat16: arithmetic is what is compared."""
    pytest.importorskip("glassllm", reason="the small model comes from the package glassllm")
    import torch

    from p2pfed.train import base_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_model, "compute_dtype", lambda _: torch.float32)
        yield tmp_path_factory.mktemp("cache")


@pytest.fixture
def make_learner(cache: Path) -> Callable[..., object]:
    """A learner on plain sentences; keyword arguments change the network's training or gossip."""
    import torch

    from p2pfed.config import AdapterConfig, GossipConfig, ModelConfig, NetworkConfig, TrainingConfig
    from p2pfed.train.base_model import base_folder, load_base
    from p2pfed.train.examples import tokenise
    from p2pfed.train.learner import LoraLearner
    from p2pfed.train.prompts import load_template
    from p2pfed.train.rows import TextRow

    torch.set_num_threads(1)

    def make(
        name: str = "test",
        sentences: Sequence[str] = SENTENCES,
        encoding: str = "float32",
        rank: int = 4,
        checkpointing: bool = False,
        **training: float,
    ) -> LoraLearner:
        network = NetworkConfig(
            name,
            ModelConfig("package:glassllm-en", sequence_tokens_max=128),
            AdapterConfig(rank=rank, alpha=2.0 * rank, seed=7),
            TrainingConfig(**({"learning_rate": 5e-3, "batch_rows": 3, "warmup_steps": 2} | training)),  # type: ignore[arg-type]
            GossipConfig(encoding=encoding),
        )
        folder = base_folder(network.model, cache=cache, offline=True)
        base = load_base(network.model, folder, cache=cache, device=torch.device("cpu"))
        rows = [TextRow(text) for text in sentences]
        template = load_template(network.model.prompt)
        done = tokenise(rows, range(1, len(rows) + 1), base.tokenizer, template, 128)
        return LoraLearner(network, base, done.examples, gradient_checkpointing=checkpointing)

    return make
