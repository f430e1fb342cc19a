"""Benchmark of trust: how far a study's best score is to be believed, and which way of choosing gives the best models.

    OMP_NUM_THREADS=1 python -m benchmarks.trust [--parts truth,outer] [--quick] [--show]    (`make trust`, with rivals)

`truth`: 200 studies of 40 trials, of 300 validation samples, where the truth is known. Half of them have MNIST's images
with labels that are drawn at random, so that every model is worth 10 %; the others have 1,000 images of MNIST, and what
a model is worth is measured on the other 69,000. `chosen` is the best trial's value with Wilson's interval, `corrected`
the report's score with its interval, both held against the trial's own model, whose weights the study has kept; then
the corrected score is held against the same configuration trained once more, with other dropout masks, for the luck of
a training was chosen too. `fresh` is the mean of the configuration over 5 fresh seeds with splits of their own, with
Student's t. Bias is the mean difference from the truth in points, with its standard error; coverage is the share
of 95 % intervals that hold it, with its own interval.

`evaluated`: what the report says of the chosen configuration once `hpo evaluate` has trained it from 5 fresh seeds and
tested it on 300 other images, with its interval over seeds and samples, against 15 other seeds and all other images.

`outer`: 30 random splits of each of four small data sets, three quarters to train and choose on and one to test.
Every way of choosing has the same space, and the same seconds of the processor on one thread, so that other work on the
machine does not matter: `holdout`, `resplit` (each trial a split of its own), `5 folds`, `racing` (folds, of which bad
trials train few), each by the rules `best` and `one_se`, and `evaluated` of the three leaders over 5 fresh seeds, which
the seconds include. Rivals are scikit-learn's and Optuna's searches with 5 folds around a skorch net. What is chosen is
trained on all training samples from 5 seeds, and tested: the mean test score with its 95 % interval, the difference
from `holdout best` split by split, and how often a choice is worse on the test samples than the defaults (overtuned).

How early a study may end is `benchmarks/settled.py`. Results are kept in `build/trust`, a line each, and a run that was
interrupted goes on after the last one. All of it takes some 10 hours; `--quick` a few minutes.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from scipy.stats import binomtest
from scipy.stats import t as student

from benchmarks.results_file import ResultsFile
from benchmarks.trust_rivals import RIVALS, Task, default_score, is_installed, run_rival
from benchmarks.trust_studies import (
    SEEDS,
    Chosen,
    FinishedStudy,
    evaluated_score,
    fresh_scores,
    refit_score,
    run_study,
    t_interval,
    true_scores,
)
from hpo.config.trial_config import TrialConfig
from hpo.datasets import mnist
from hpo.report.stats.choice import choose_trial
from hpo.report.stats.selection import correct_selection

Array = np.ndarray[Any, Any]
Row = dict[str, Any]
KINDS = ("random labels", "MNIST")
SAMPLES, VALIDATION = 1000, 300
TRUTH = {
    "trials": 40,
    "sampler": "random",
    "parameters": {
        "width": {"low": 8, "high": 64, "log": True},
        "depth": {"low": 1, "high": 2},
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "dropout": {"low": 0.0, "high": 0.5},
        "epochs": 5,
        "batch_size": 64,
        "validation": VALIDATION,
    },
}
SCORES = {  # and what each is held against
    "chosen": ("chosen", "truth"),
    "corrected": ("corrected", "truth"),
    "corrected, of another training": ("corrected", "truth again"),
    "fresh": ("fresh", "fresh truth"),
    "evaluated": ("evaluated", "truth"),
}
SETS = ("digits", "wine", "breast_cancer", "diabetes")
SPACE: Mapping[str, tuple[float, float, bool]] = {
    "learning_rate": (1e-4, 3e-2, True),
    "width": (8, 128, True),
    "depth": (1, 3, False),
    "weight_decay": (1e-6, 1e-1, True),
    "dropout": (0.0, 0.5, False),
}
DEFAULTS = {"learning_rate": 1e-3, "width": 32, "depth": 2, "weight_decay": 1e-2, "dropout": 0.0}
EPOCHS, TEST = 30, 0.25
WAYS: Mapping[str, Mapping[str, Any]] = {
    "holdout": {},
    "resplit": {"resplit": "per_trial"},
    "5 folds": {"folds": 5},
    "racing": {"folds": 5, "intensify": True, "pruner": "wilcoxon"},
}
RULES = ("best", "one_se")
EVALUATED, LEADERS = 0.7, 3  # share of the seconds that the search has, and how many are trained again


# Truth.


def _truth_data(kind: str, seed: int) -> dict[str, Array]:
    """Return the samples of a study, and as its test part all others; of labels that are drawn at random a few.

    The samples have the digits in the proportions of all. A thousand that happens to have more ones gives training and
    validation samples more ones, for they are split by class: every model knows ones better, and is asked for them.
    """
    from sklearn.model_selection import train_test_split

    whole = mnist()
    x, y = (np.asarray(part) for part in whole.train)
    test: Any = whole.test() if callable(whole.test) else whole.test
    x, y = np.concatenate([x, np.asarray(test[0])]), np.concatenate([y, np.asarray(test[1])])
    mine, rest = train_test_split(np.arange(len(x)), train_size=SAMPLES, stratify=y, random_state=seed)
    if kind == "random labels":
        y, rest = np.random.default_rng([seed, 24]).integers(0, 10, len(y)), rest[: 2 * VALIDATION]
    return {"x_train": x[mine], "y_train": y[mine], "x_test": x[rest], "y_test": y[rest]}


def measure_truth(planned: Row, folder: Path) -> Row:
    """Run one study, and return its scores and what they are held against."""
    kind, seed = planned["kind"], planned["seed"]
    finished = run_study({**TRUTH, "seed": seed}, _truth_data(kind, seed), folder)
    best, corrected = finished.results.best, correct_selection(finished.samples, finished.results)
    assert best is not None
    assert best.value is not None
    assert corrected is not None
    values, truths = fresh_scores(finished, best)
    right = round(best.value * VALIDATION)
    wilson = binomtest(right, VALIDATION).proportion_ci(method="wilson")
    known = 0.1 if kind == "random labels" else None
    own, again = true_scores(finished, best) if known is None else (known, known)
    return {
        "chosen": [best.value, float(wilson.low), float(wilson.high)],
        "corrected": [corrected.corrected, corrected.low, corrected.high],
        "fresh": [float(np.mean(values)), *t_interval(values)],
        "truth": own,
        "truth again": again,
        "fresh truth": float(np.mean(truths)) if known is None else known,
    }


def measure_evaluated(planned: Row, folder: Path) -> Row:
    """Run one study, evaluate the best trial's configuration, and return its score and what it is held against."""
    kind, seed = planned["kind"], planned["seed"]
    finished = run_study({**TRUTH, "seed": seed}, _truth_data(kind, seed), folder)
    best = finished.results.best
    assert best is not None
    score, truth = evaluated_score(finished, best, VALIDATION)
    return {"evaluated": [score.mean, score.low, score.high], "truth": 0.1 if kind == "random labels" else truth}


def show_truth(rows: Sequence[Row]) -> str:
    """Return the table of biases and coverages of the scores that the rows have."""
    lines = ["| studies | number | score | bias, points | of that of the chosen | coverage of 95 % |", "|---" * 6 + "|"]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        chosen = float("nan")
        scores = {label: keys for label, keys in SCORES.items() if keys[0] in own[0]}
        for label, (score, truth) in scores.items():
            truths = np.array([row[truth] for row in own])
            values, low, high = np.array([row[score] for row in own]).T
            bias = 100 * (values - truths)
            chosen = bias.mean() if label == "chosen" else chosen
            share = "" if math.isnan(chosen) else f"{bias.mean() / chosen:+.0%}"
            covered = int(((low <= truths) & (truths <= high)).sum())
            interval = binomtest(covered, len(own)).proportion_ci(method="wilson")
            error = bias.std(ddof=1) / len(own) ** 0.5 if len(own) > 1 else float("nan")
            lines.append(
                f"| {kind} | {len(own)} | {label} | {bias.mean():+.2f} ± {error:.2f} | {share} "
                f"| {covered / len(own):.1%} ({interval.low:.0%} to {interval.high:.0%}) |"
            )
    return "\n".join(lines)


# Outer splits.


def _outer_data(name: str, split: int) -> dict[str, Array]:
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x, y = x.astype(np.float32), y.astype(np.float32) if name == "diabetes" else y.astype(np.int64)
    stratify = None if name == "diabetes" else y
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=TEST, random_state=split, stratify=stratify)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _domain(low: float, high: float, log: bool) -> Row:
    return {"low": low, "high": high, **({"log": True} if log else {})}


def _outer_study(way: str, planned: Row) -> Row:
    fixed = {"optimizer": "adamw", "epochs": EPOCHS, "batch_size": 32}
    validation = {} if "folds" in WAYS[way] else {"validation": 0.25}
    space = {name: _domain(*bounds) for name, bounds in SPACE.items()}
    return {
        "trials": 100_000,
        "sampler": "tpe",
        "seed": planned["split"],
        "objective": "val_r2" if planned["data"] == "diabetes" else "val_accuracy",
        "parameters": {**space, **fixed, **validation},
        **WAYS[way],
    }


def _evaluate_leaders(finished: FinishedStudy) -> Chosen:
    """Return the leader whose mean over fresh seeds and splits is the highest."""
    leaders = finished.results.ranked[:LEADERS]
    return Chosen.of(max(leaders, key=lambda row: float(np.mean(fresh_scores(finished, row)[0]))))


def measure_outer(planned: Row, folder: Path) -> Row:
    """Choose in one way on one outer split, by each rule, and return the test scores."""
    arrays, way, seconds = _outer_data(planned["data"], planned["split"]), planned["way"], planned["seconds"]
    if way in RIVALS:
        return _measure_rival(planned, arrays)
    search = EVALUATED * seconds if planned["evaluated"] else seconds
    finished = run_study(_outer_study(way, planned), arrays, folder, search)
    if planned["evaluated"]:
        since = time.process_time()
        chosen = {"evaluated": _evaluate_leaders(finished)}
        spent = finished.seconds + time.process_time() - since
    else:
        rows = {rule: choose_trial(finished.results, rule, finished.samples).row for rule in RULES}
        chosen, spent = {rule: Chosen.of(row) for rule, row in rows.items()}, finished.seconds
    config = next(iter(chosen.values())).config
    default = Chosen(TrialConfig(**{**config.model_dump(), **DEFAULTS}), EPOCHS)
    return {
        "scores": {rule: refit_score(finished, each) for rule, each in chosen.items()},
        "default": refit_score(finished, default),
        "trials": sum(finished.results.counts[state] for state in ("COMPLETE", "PRUNED")),
        "spent": spent,
    }


def _measure_rival(planned: Row, arrays: Mapping[str, Array]) -> Row:
    task = Task(
        x=arrays["x_train"],
        y=arrays["y_train"],
        x_test=arrays["x_test"],
        y_test=arrays["y_test"],
        space=SPACE,
        defaults=DEFAULTS,
        epochs=EPOCHS,
        regression=planned["data"] == "diabetes",
        seconds=planned["seconds"],
        seed=planned["split"],
    )
    found = run_rival(planned["way"], task, SEEDS)
    return {
        "scores": {"best": found["score"]},
        "default": default_score(task, SEEDS),
        "trials": found["trials"],
        "spent": found["seconds"],
    }


def show_outer(rows: Sequence[Row]) -> str:
    """Return a table of test scores for each data set."""
    parts = []
    for data, seconds in dict.fromkeys((row["data"], row["seconds"]) for row in rows):
        own = [row for row in rows if (row["data"], row["seconds"]) == (data, seconds)]
        scores: dict[str, dict[int, tuple[float, float]]] = {}
        for row in own:
            for rule, score in row["scores"].items():
                label = row["way"] if row["way"] in RIVALS else f"{row['way']} {rule}"
                scores.setdefault(label, {})[row["split"]] = score, row["default"]
        medians = {name: {label: _median(own, label, name) for label in scores} for name in ("trials", "spent")}
        base = {split: score for split, (score, _) in scores.get("holdout best", {}).items()}
        lines = [f"{data}, {seconds:g} s, {'R²' if data == 'diabetes' else 'accuracy'} in %", ""]
        columns = ("way", "splits", "trials", "seconds", "test score", "less that of holdout best", "overtuned")
        lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for label, found in scores.items():
            values = [100 * score for score, _ in found.values()]
            less = [100 * (score - base[split]) for split, (score, _) in found.items() if split in base]
            worse = sum(score < default for score, default in found.values())
            lines.append(
                f"| {label} | {len(found)} | {medians['trials'][label]:.0f} | {medians['spent'][label]:.1f} "
                f"| {_mean_text(values)} | {_mean_text(less)} | {worse / len(found):.0%} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _median(rows: Sequence[Row], label: str, name: str) -> float:
    own = [row for row in rows if label in (row["way"], *(f"{row['way']} {rule}" for rule in row["scores"]))]
    return float(np.median([row[name] for row in own]))


def _mean_text(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values) or "none"
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.2f} ± {half:.2f}"


# The run.


def plan(arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield what identifies each run; ways take turns, split by split, so that other load is shared."""
    for part, seed in itertools.product(("truth", "evaluated"), range(arguments.studies)):
        if part in arguments.parts and (kind := KINDS[seed % 2]) in arguments.kinds:
            yield {"part": part, "kind": kind, "seed": seed}
    if "outer" in arguments.parts:
        rivals = list(RIVALS) if is_installed() else []
        ways = [(way, False) for way in WAYS] + [("holdout", True)] + [(rival, False) for rival in rivals]
        ways = [(way, evaluated) for way, evaluated in ways if way in (arguments.ways or (way,))]
        for split in range(arguments.splits):
            for data in arguments.data:
                for way, evaluated in ways[split % len(ways) :] + ways[: split % len(ways)]:
                    row = {"part": "outer", "data": data, "split": split, "way": way, "evaluated": evaluated}
                    yield {**row, "seconds": arguments.seconds}


PARTS: Mapping[str, tuple[Callable[[Row, Path], Row], Callable[[Sequence[Row]], str]]] = {
    "truth": (measure_truth, show_truth),
    "evaluated": (measure_evaluated, show_truth),
    "outer": (measure_outer, show_outer),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trust", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--studies", type=int, default=200, help="of `truth` and `evaluated`, half of each kind (200)")
    parser.add_argument(
        "--kinds", type=lambda text: text.split(","), default=list(KINDS), help="of them: " + ",".join(KINDS)
    )
    parser.add_argument("--splits", type=int, default=30, help="outer splits of each data set (30)")
    parser.add_argument(
        "--seconds", type=float, default=30, help="of the processor, of each way on an outer split (30)"
    )
    parser.add_argument("--data", type=lambda text: text.split(","), default=list(SETS), help=",".join(SETS))
    parser.add_argument("--ways", type=lambda text: text.split(","), help="as holdout,resplit (all that are installed)")
    parser.add_argument("--quick", action="store_true", help="6 studies, and 2 splits of 4 seconds")
    parser.add_argument("--show", action="store_true", help="run nothing, and print the tables of the results")
    parser.add_argument("--folder", type=Path, default=Path("build/trust"), help="of the results (build/trust)")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.studies, arguments.splits, arguments.seconds = 6, 2, 4.0
    return arguments


def main() -> None:
    """Run what is not done yet, and print the tables."""
    arguments = parse_arguments()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("hpo").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    folder = arguments.folder.resolve()
    results = ResultsFile(folder / "results.jsonl")
    planned = list(plan(arguments))
    for each in () if arguments.show else planned:
        if results.find(each) is None:
            row = PARTS[each["part"]][0](each, folder / "run")
            results.add(each, {**each, **row, "load": os.getloadavg()[0]})
            print(" ".join(str(value) for value in each.values()), flush=True)
    rows = [row for row in results.rows if row["planned"] in planned or arguments.show]
    print(f"\n{os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}, one thread")
    if not is_installed() and "outer" in arguments.parts:
        print("Without the rivals: skorch and optuna-integration are not installed here; see `make trust`.")
    for part, (_, show) in PARTS.items():
        if own := [row for row in rows if row["part"] == part]:
            loads = [row["load"] for row in own]
            print(f"\n{show(own)}\n\nLoad average {min(loads):.1f} to {max(loads):.1f}.")


if __name__ == "__main__":
    main()
