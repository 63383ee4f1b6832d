"""`python -m tests.bench.learning [tune] [main] [report] --out FOLDER`: learning rates, reported cells, plots.

Without a word: all three. What is in FOLDER already is not run again; stop it whenever you like.
"""

import argparse
from pathlib import Path

from tests.bench.learning.cells import ARMS, MODELS, reported_cells, tuning_cells
from tests.bench.learning.results import Results, best_rates
from tests.bench.learning.runner import run_cells

STAGES = ("tune", "main", "report")


def main() -> None:
    options = _options()
    arms = [arm for arm in ARMS if not options.arms or arm.name in options.arms]
    results = Results(Path(options.out))
    for stage in options.stages or STAGES:
        tuning = list(tuning_cells(options.model, arms))
        match stage:
            case "tune":
                run_cells(tuning, results, options.workers)
            case "main":
                best = best_rates(results.read(), arms, tuning)
                missing = [arm.name for arm in arms if arm.name not in best]
                if missing:
                    raise SystemExit(f"no learning rate was tuned for {', '.join(missing)}: run tune first")
                run_cells(reported_cells(options.model, arms, best), results, options.workers)
            case "report":
                # matplotlib and plotly are wanted here alone.
                from tests.bench.learning.report import write_report

                print(write_report(results, options.model, arms, Path(options.out)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.learning", description=__doc__)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="default: all")
    parser.add_argument("--out", required=True, help="results folder")
    parser.add_argument("--model", choices=sorted(MODELS), default="glassllm", help="smollm2: hours")
    parser.add_argument("--arms", nargs="*", default=[], help="only these")
    parser.add_argument("--workers", type=int, default=2, help="processes, one core each")
    return parser.parse_args()


if __name__ == "__main__":
    main()
