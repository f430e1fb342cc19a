"""Benchmark of ending early: the trials that each rule saves against what it loses, on studies run to their ends.

    OMP_NUM_THREADS=1 python -m benchmarks.settled [--rows stored,random,tpe] [--problems mlp,cnn,hpolib] [--quick]

Row `stored`: the trained configurations of our tables of learning curves, in 50 orders. Rows `random` and `tpe`:
studies replayed in virtual time with the product's own samplers (see `benchmarks/replay.py`), 50 seeds of each, on
models of these tables with the noise of their validation samples added, and on HPOLib's tables, whose four runs of a
configuration differ by what training again changes. Nothing is trained.

A study that ends after n of its N trials saves 1 - n / N of them. It loses what the best of all N has over the best of
n, by their true scores, in units of the noise: the mean with its 95 % interval, the 90th percentile, and how often it
is more than the noise. Rules: `ours` is `hpo.study.settled`, which ends a study once its expected gain is below the
noise, also with half of it and twice as much; `doubling` expects of as many trials again what the last doubling has
gained, by resampling; `stagnant k`, as Optuna's BestValueStagnationEvaluator, has had k trials without a gain above the
noise; `regret bound` and `emmr` are Optuna's RegretBoundEvaluator below the noise and its EMMREvaluator below its
MedianErrorEvaluator (row `gp`, after every tenth trial of 10 seeds: both fit a Gaussian process).
"""

from __future__ import annotations

import argparse
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.terminator import EMMREvaluator, MedianErrorEvaluator, RegretBoundEvaluator
from optuna.trial import FrozenTrial

from benchmarks.learning_curves import MissingTableError, read_curves
from benchmarks.problems import HPOLIB, Problem, load_problem
from benchmarks.replay import Plan, replay
from benchmarks.search import mean_text
from hpo.study.samplers import SAMPLERS, count_startup_trials
from hpo.study.settled import Search, expect_gain

Array = NDArray[np.float64]
SAMPLES = {"mlp": 4000, "cnn": 2000}  # of the validation data that the tables were made with
CHANCE = 0.1
STEP, GP_SEEDS = 10, 10  # trials between two fits of a Gaussian process, and seeds
TABLES = ("mlp", "cnn")


@dataclass(frozen=True)
class Course:
    """Course of one study, a number for each trial in the order in which they ended.

    Attributes:
        scores: as they were reported; larger is better.
        true: the same without noise.
        noise: standard error of the scores.
        startup: how many trials were drawn before the sampler learned; None if none depends on others.
        trials: as Optuna has them; none of a table.
    """

    scores: Array
    true: Array
    noise: float
    startup: int | None = None
    trials: Sequence[FrozenTrial] = field(default=(), repr=False)

    @property
    def search(self) -> Search:
        """The plan that the rule of the product needs."""
        return Search(len(self.scores), self.startup)

    def lose(self, count: int) -> float:
        """Return what a study that ends after some trials loses to one that goes on, in units of the noise."""
        goes_on, ends = (int(self.scores[:n].argmax()) for n in (len(self.scores), count))
        return float(self.true[goes_on] - self.true[ends]) / self.noise


Rule = Callable[[Course, int], bool]  # whether a study has settled after some of its trials


def count_trials(course: Course, rule: Rule, step: int = 1) -> int:
    """Return after how many trials a rule ends a study."""
    counts = range(course.search.fewest, len(course.scores), step)
    return next((count for count in counts if rule(course, count)), len(course.scores))


# Rules.


def ours(factor: float) -> Rule:
    """Return the rule of the product, with a multiple of the noise."""

    def rule(course: Course, count: int) -> bool:
        gain = expect_gain(course.scores[:count], np.ones(count, bool), course.search)
        return gain < factor * course.noise

    return rule


def doubling(course: Course, count: int) -> bool:
    """Return whether the best leads the expected best of half of the trials by less than the noise."""
    recent = course.scores[:count] if course.startup is None else course.scores[count // 2 : count]
    ordered = np.sort(recent)[::-1]
    half, left, expected = len(ordered) // 2, 1.0, 0.0
    for place in range(len(ordered) - half + 1):  # the best of the half is that of this place
        share = half / (len(ordered) - place)
        expected += left * share * ordered[place]
        left *= 1 - share
    return bool(ordered[0] - expected < course.noise)


def stagnant(patience: int) -> Rule:
    """Return the rule that ends a study after some trials without a gain above the noise."""

    def rule(course: Course, count: int) -> bool:
        gain = course.scores[:count].max() - course.scores[: max(count - patience, 1)].max()
        return count > patience and bool(gain < course.noise)

    return rule


def regret_bound(course: Course, count: int) -> bool:
    """Return whether Optuna's upper bound on the regret is below the noise."""
    bound = RegretBoundEvaluator(seed=0).evaluate(list(course.trials[:count]), StudyDirection.MAXIMIZE)
    return bound < course.noise


def emmr(course: Course, count: int) -> bool:
    """Return whether Optuna's expected minimum model regret is below its own measure of the noise."""
    evaluator = EMMREvaluator(seed=0)
    trials = list(course.trials[:count])
    error = MedianErrorEvaluator(evaluator).evaluate(trials, StudyDirection.MAXIMIZE)
    return evaluator.evaluate(trials, StudyDirection.MAXIMIZE) < error


RULES: Mapping[str, Rule] = {
    "ours": ours(1),
    "ours, half the noise": ours(0.5),
    "ours, twice the noise": ours(2),
    "doubling": doubling,
    **{f"stagnant {patience}": stagnant(patience) for patience in (10, 20, 30, 60)},
}
OF_OPTUNA: Mapping[str, Rule] = {"ours": ours(1), "regret bound": regret_bound, "emmr": emmr}


# Studies.


def read_stored(name: str, trials: int, seeds: int) -> Iterator[Course]:
    """Yield the configurations of a table in as many orders, as many of them as the study has trials."""
    curves = [[CHANCE if each is None else each for each in row] for row in read_curves(name)["val_accuracy"]]
    best = np.array(curves).max(1)
    for seed in range(seeds):
        scores = np.random.default_rng(seed).permutation(best)[:trials]
        yield Course(scores, scores, _sampling_error(scores.max(), name))


def replay_courses(problem: Problem, name: str, sampler: str, trials: int, seeds: int) -> Iterator[Course]:
    """Yield replays of a study with one worker."""
    startup = None if SAMPLERS[sampler].fixed else count_startup_trials(sampler, {})
    for seed in range(seeds):
        log = replay(problem, Plan(sampler, cohort=1, workers=1), seed, trials)
        reported, true = np.array([log.values[number] for number in range(trials)]).T
        noise = _sampling_error(problem.best, name) if name in TABLES else _retraining_noise(problem)
        more = noise * np.random.default_rng([seed, 1]).normal(size=trials) if name in TABLES else 0.0
        yield Course(reported + more, true, noise, startup, log.trials)


def _sampling_error(accuracy: float, name: str) -> float:
    return math.sqrt(accuracy * (1 - accuracy) / SAMPLES[name])


def _retraining_noise(problem: Problem) -> float:
    """Return the standard deviation of the scores of a good configuration over HPOLib's four runs."""
    rng = np.random.default_rng(0)
    draws = [problem.space.draw(row) for row in rng.random((500, len(problem.space.varied))).tolist()]
    ranked = sorted(draws, key=lambda params: -problem.answer(params, rng).true[0])[:50]
    found = [[float(problem.answer(params, rng).scores[0]) for _ in range(20)] for params in ranked]
    return float(np.sqrt(np.var(found, axis=1).mean()))


# Tables.


def print_rules(courses: Sequence[Course], rules: Mapping[str, Rule], step: int = 1) -> None:
    """Print what each rule saves and loses."""
    print(f"{'':24}{'ends after':>12}{'saves':>8}{'loses, in noise':>18}{'90th':>7}{'> noise':>9}")
    for name, rule in rules.items():
        counts = np.array([count_trials(course, rule, step) for course in courses])
        losses = np.array([course.lose(count) for course, count in zip(courses, counts, strict=True)])
        saved = 1 - counts.mean() / len(courses[0].scores)
        print(
            f"{name:24}{counts.mean():>12.0f}{f'{100 * saved:.0f} %':>8}{mean_text(losses):>18}"
            f"{np.quantile(losses, 0.9):>7.2f}{f'{100 * (losses > 1).mean():.0f} %':>9}",
            flush=True,
        )


PROBLEMS = {"mlp": ("mlp",), "cnn": ("cnn",), "hpolib": HPOLIB, **{name: (name,) for name in HPOLIB}}
ROWS = ("stored", "random", "tpe", "gp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="stored,random,tpe", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--problems", default="mlp,cnn,hpolib", help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument("--seeds", type=int, default=50, help="orders, or seeds")
    parser.add_argument("--trials", type=int, default=100, help="of a study")
    parser.add_argument("--quick", action="store_true", help="5 seeds")
    arguments = parser.parse_args()
    for option, names, known in (("rows", arguments.rows, ROWS), ("problems", arguments.problems, PROBLEMS)):
        if wrong := set(names.split(",")) - set(known):
            parser.error(f"--{option} {','.join(sorted(wrong))}: must be of {', '.join(known)}")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("hpo").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # of experimental and deprecated parts of Optuna
    seeds = min(arguments.seeds, 5) if arguments.quick else arguments.seeds
    rows = arguments.rows.split(",")
    for name in (name for key in arguments.problems.split(",") for name in PROBLEMS[key]):
        try:
            problem = load_problem(name)
        except MissingTableError as error:
            print(f"\n{name}: left out: {error}", flush=True)
            continue
        print_problem(problem, name, rows, arguments.trials, seeds)


def print_problem(problem: Problem, name: str, rows: Sequence[str], trials: int, seeds: int) -> None:
    """Print the rows of a problem."""
    if "stored" in rows and name in TABLES:
        courses = list(read_stored(name, trials, seeds))
        print(f"\n{name}: {len(courses[0].scores)} stored trials, {seeds} orders, noise {courses[0].noise:.2g}")
        print_rules(courses, RULES)
    for sampler in (each for each in rows if each in SAMPLERS):
        courses = list(replay_courses(problem, name, sampler, trials, seeds))
        print(f"\n{name}: {trials} trials of {sampler}, {seeds} replays, noise {courses[0].noise:.2g}")
        print_rules(courses, RULES)
    if "gp" in rows:
        courses = list(replay_courses(problem, name, "tpe", trials, min(seeds, GP_SEEDS)))
        print(f"\n{name}: {trials} trials of tpe, {len(courses)} replays, noise {courses[0].noise:.2g}")
        print_rules(courses, OF_OPTUNA, STEP)


if __name__ == "__main__":
    main()
