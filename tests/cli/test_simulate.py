"""`p2pfed simulate`: equal devices or a file, answers for people and programs, plots, and what it says of mistakes."""

import json
import sys
from pathlib import Path

import pytest

from p2pfed.errors import ExitCode
from tests.cli.shell import Shell

PNG = b"\x89PNG\r\n\x1a\n"
FILE = """
seed = 5
duration_s = 120.0
[[nodes]]
count = 6
remembers = 2
[expect]
quiet = false
"""


def test_devices_are_simulated_and_told_of(shell: Shell) -> None:
    result = shell("simulate", "--nodes", "12", "--hours", "0.1", "--seed", "3")
    assert result.code == 0 and "all held" in result.out and "consensus distance" in result.out
    assert "100% of 0.1 h" in result.err


def test_one_seed_is_one_history_in_json(shell: Shell) -> None:
    asked = ("simulate", "--nodes", "8", "--hours", "0.1", "--format", "json")
    first, again, other = (shell(*asked, "--seed", seed).json for seed in ("1", "1", "2"))
    assert first["history"] == again["history"] != other["history"]
    assert first["nodes_total"] == 8 and first["swaps"] > 0 and first["problems"] == []
    assert first["spread"][-1]["gap"] < first["spread"][0]["gap"]


def test_plots_are_written_and_need_nothing_from_outside(shell: Shell) -> None:
    result = shell("simulate", "--nodes", "8", "--hours", "0.1", "--learner", "quadratic", "--out", "plots")
    assert result.code == 0, result
    page = Path("plots/report.html").read_text()
    assert "Who swapped with whom" in page and "prefers-color-scheme:dark" in page
    assert "<link" not in page and "<script src" not in page
    assert Path("plots/report.png").read_bytes().startswith(PNG)
    assert json.loads(Path("plots/report.json").read_text())["nodes_total"] == 8


def test_without_plot_packages_it_says_what_to_install_and_writes_json(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("plotly", "plotly.offline", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    result = shell("simulate", "--nodes", "4", "--hours", "0.02", "--out", "plots")
    assert result.code == 0 and "pip install 'p2pfed[sim]'" in result.err
    assert [path.name for path in Path("plots").iterdir()] == ["report.json"]


def test_a_file_is_simulated_and_its_seed_and_time_may_be_others(shell: Shell) -> None:
    Path("six.toml").write_text(FILE)
    told = shell("simulate", "six.toml", "--hours", "0.05", "--seed", "9", "--format", "json").json
    assert (told["scenario"], told["seed"], told["duration_s"]) == ("six", 9, 180.0)


def test_what_a_file_expects_and_does_not_get_fails(shell: Shell) -> None:
    Path("six.toml").write_text(FILE + "swaps_min = 100000\n")
    result = shell("simulate", "six.toml")
    assert result.code != 0 and "fewer than 100000" in result.out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("count = 6", "cuont = 6"), "'cuont'; did you mean 'count'"),
        (("remembers", "uplink"), "did you mean 'uplink_bytes_s'"),
        (("remembers = 2", 'learner = "quadratics"'), "did you mean 'quadratic'"),
        (("remembers = 2", 'nat = "cones"'), "none of public, cone, symmetric"),
        (("[expect]", '[topology]\nkind = "rnig"\n[expect]'), "did you mean 'ring'"),
        (("seed = 5", "seed ="), "six.toml is not TOML"),
    ],
)
def test_mistakes_in_a_file_are_told_with_what_was_meant(shell: Shell, change: tuple[str, str], words: str) -> None:
    Path("six.toml").write_text(FILE.replace(*change))
    assert words in shell.refused(ExitCode.CONFIG, "simulate", "six.toml")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--learner", "toyy"), "did you mean 'toy'"),
        (("--topology", "star-like"), "did you mean 'star'"),
        (("--encoding", "int5"), "none of int4"),
        (("--hours", "0"), "not above 0"),
        (("--down", "1.5"), "churn of 1.5"),
        (("--nodes", "3", "--attackers", "3"), "at least one is to be honest"),
        (("missing.toml",), "cannot read missing.toml"),
    ],
)
def test_wrong_options_are_told(shell: Shell, arguments: tuple[str, ...], words: str) -> None:
    assert words in shell.refused(ExitCode.CONFIG, "simulate", *arguments)


def test_options_of_devices_do_not_go_with_a_file(shell: Shell) -> None:
    Path("six.toml").write_text(FILE)
    assert "--nodes" in shell.refused(ExitCode.CONFIG, "simulate", "six.toml", "--nodes", "7")
