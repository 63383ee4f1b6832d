"""`p2pfed data`: what a node would understand of training data."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from p2pfed.cli.output import Format, FormatOption, columns, pairs, show
from p2pfed.errors import ExitCode, LocalError

if TYPE_CHECKING:
    from p2pfed.config import NetworkConfig
    from p2pfed.train.data import DataReport

app = typer.Typer(no_args_is_help=True, help="Look at training data before a node trains on it.")

SAMPLES = 3
REJECTED_SHOWN = 20
SAMPLE_CHARS_MAX = 4000
"""Of one shown sample; a longer one is cut in its middle."""


@app.command()
def check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="JSONL, CSV or Parquet file, or a hub data set.")],
    network: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A network.toml: lengths in its model's tokens, samples as it sees them."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never reach for a model hub.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Print what was understood: rows, lengths, rejected rows with line and reason, three samples.

    Understood are Prometheus's absolute and relative grading rows, {"messages": [...]}, {"prompt", "completion"}
    and {"text"}. With --network every row is tokenised, and those too long for its sequence limit are named.
    """
    from p2pfed.train.data import read_rows

    report = read_rows(path)
    described: dict[str, Any] = {
        "source": report.source,
        "rows": len(report.rows),
        "kinds": dict(report.kinds),
        "characters": _spread(report.characters),
        "rejected": report.rejected_count,
        "rejected_rows": [{"line": line, "reason": reason} for line, reason in report.rejected],
    }
    if network is not None:
        from p2pfed.config_file import load_network

        described |= _as_tokens(report, load_network(network), offline)
    show(described, output, _render)


def _as_tokens(report: "DataReport", network: "NetworkConfig", offline: bool) -> dict[str, Any]:
    """How the network's model sees the rows. Needs its tokenizer, not its weights."""
    import os

    from p2pfed.node import prepare_environment

    prepare_environment(network, 1)
    try:
        from p2pfed.train.base_model import base_folder, load_config, load_tokenizer
        from p2pfed.train.examples import tokenise, training_texts
        from p2pfed.train.packaged import cache_folder
        from p2pfed.train.prompts import load_template
    except ModuleNotFoundError as error:
        raise LocalError(
            f"a look with --network needs the package {error.name}: pip install 'p2pfed[node]', or leave it out",
            ExitCode.EXTRA_MISSING,
        ) from error
    folder = base_folder(network.model, cache=cache_folder(os.environ), offline=offline)
    tokenizer = load_tokenizer(folder)
    template = load_template(network.model.prompt)
    tokens_max = min(network.model.sequence_tokens_max, load_config(folder).max_position_embeddings)
    tokenised = tokenise(report.rows, report.lines, tokenizer, template, tokens_max)
    row_of = dict(zip(report.lines, report.rows, strict=True))
    step = max(1, len(tokenised.examples) // SAMPLES)
    samples = []
    for example in tokenised.examples[::step][:SAMPLES]:
        prompt, completion = training_texts(row_of[example.line], tokenizer, template)
        samples.append({"line": example.line, "tokens": len(example.ids), "prompt": prompt, "completion": completion})
    return {
        "usable_rows": len(tokenised.examples),
        "tokens": _spread([len(example.ids) for example in tokenised.examples]),
        "tokens_max": tokens_max,
        "not_trainable": [{"line": line, "reason": reason} for line, reason in tokenised.rejected],
        "samples": samples,
    }


def _spread(lengths: Sequence[int]) -> dict[str, int]:
    ordered = sorted(lengths)
    if not ordered:
        return {}
    return {"least": ordered[0], "median": ordered[len(ordered) // 2], "most": ordered[-1], "total": sum(ordered)}


def _render(described: dict[str, Any]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in described["kinds"].items())
    rows: dict[str, object] = {
        "rows": f"{described['rows']} ({kinds})",
        "characters": _spread_words(described["characters"]),
        "rejected": described["rejected"],
    }
    sections = []
    if "tokens" in described:
        left_out = len(described["not_trainable"])
        rows["tokens"] = f"{_spread_words(described['tokens'])}; the limit is {described['tokens_max']}"
        rows["trainable"] = f"{described['usable_rows']} rows; {left_out} left out"
    sections.append(pairs(rows))
    refused = described["rejected_rows"] + described.get("not_trainable", [])
    if refused:
        listed = columns(("LINE", "REASON"), [(each["line"], each["reason"]) for each in refused[:REJECTED_SHOWN]])
        total = described["rejected"] + len(described.get("not_trainable", []))
        more = f"\n... and {total - REJECTED_SHOWN} more" if total > REJECTED_SHOWN else ""
        sections.append(listed + more)
    for sample in described.get("samples", []):
        sections.append(
            f"--- line {sample['line']}, {sample['tokens']} tokens: what the model reads\n{_cut(sample['prompt'])}\n"
            f"--- and what it learns to write\n{_cut(sample['completion'])}"
        )
    if "samples" not in described:
        sections.append("Give --network FILE to see lengths in tokens and three rows as its model reads them.")
    return "\n\n".join(sections)


def _spread_words(spread: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in spread.items())


def _cut(text: str) -> str:
    if len(text) <= SAMPLE_CHARS_MAX:
        return text
    half = SAMPLE_CHARS_MAX // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"
