"""`python -m tests.bench.learning [tune] [main] [report] --out FOLDER`: learning rates, reported cells, plots.

Without a word: all three. What is in FOLDER already is not run again; stop it whenever you like.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tests.bench.learning.cells import (
    ABLATIONS,
    ARMS,
    FEDAVG,
    MODELS,
    NETWORKS,
    RULE,
    Arm,
    reported_cells,
    tuned_as,
    tuning_cells,
)
from tests.bench.learning.results import Results, best_rates
from tests.bench.learning.runner import run_cells

STAGES = ("tune", "main", "report")


def main() -> None:
    options = _options()
    arms = chosen_arms(options.arms)
    results = Results(Path(options.out))
    for stage in options.stages or STAGES:
        tuning = list(tuning_cells(options.model, arms))
        match stage:
            case "tune":
                run_cells(tuning, results, options.workers)
            case "main":
                best = best_rates(results.read(), tuning)
                missing = sorted({tuned_as(arm).name for arm in arms} - best.keys())
                if missing:
                    raise SystemExit(f"no learning rate was tuned for {', '.join(missing)}: run tune first")
                run_cells(reported_cells(options.model, arms, best), results, options.workers)
            case "report":
                # matplotlib and plotly are wanted here alone.
                from tests.bench.learning.report import write_report

                print(write_report(results, options.model, arms, Path(options.out)))


def chosen_arms(names: Sequence[str]) -> Sequence[Arm]:
    """No name: `ARMS`. "ablations" and "networks": those, with what they are compared with."""
    if not names:
        return ARMS
    groups = {"ablations": (FEDAVG, RULE, *ABLATIONS), "networks": (FEDAVG, RULE, *NETWORKS)}
    known = {arm.name: arm for arm in (*ARMS, *ABLATIONS, *NETWORKS)}
    wanted = [each for name in names for each in ([arm.name for arm in groups.get(name, ())] or [name])]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"no arm {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(wanted)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.learning", description=__doc__)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="default: all")
    parser.add_argument("--out", required=True, help="results folder")
    parser.add_argument("--model", choices=sorted(MODELS), default="glassllm", help="smollm2: hours")
    parser.add_argument("--arms", nargs="*", default=[], help="only these; 'ablations', 'networks': all of them")
    parser.add_argument("--workers", type=int, default=2, help="processes, one core each")
    return parser.parse_args()


if __name__ == "__main__":
    main()
