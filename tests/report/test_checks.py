"""Every check on a study that has the fault, and on its healthy twin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hpo.config.resampling import Resampling
from hpo.config.trial_config import TrialConfig
from hpo.datasets import DataFacts, DatasetReference
from hpo.report.checks.chance import CHANCE_CHECKS, seeds, split
from hpo.report.checks.curves import warm_up
from hpo.report.checks.data import DATA_CHECKS
from hpo.report.checks.finding import Finding
from hpo.report.checks.run import CHECKS, run_checks
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults, EvaluationRun
from hpo.report.data.results import Results, TrialRow, read_results
from hpo.report.stats.trial_stats import count_validation_samples
from hpo.study import Budget, Definition, Objective
from hpo.study.definition import ComponentSpec
from tests.report.helpers import add_foreign, filled

LOOKED = datetime(2026, 1, 1)
MAXIMIZED = Objective(metric="val_accuracy", direction="maximize")
RATE = {"low": 1e-4, "high": 1e-1, "log": True}


def study(
    values: Callable[[Mapping[str, Any]], float] = lambda v: 0.9 - 0.05 * abs(math.log10(v["learning_rate"]) + 2.5),
    *,
    space: Mapping[str, Any] | None = None,
    count: int = 60,
    sampler: str = "random",
    options: Mapping[str, Any] | None = None,
    curve: Callable[[float, int], Mapping[str, float]] | None = None,
    epochs: int = 10,
    samples: int = 60000,
    left: int = 0,
    change: Callable[[TrialRow], TrialRow] = lambda row: row,
) -> Results:
    parameters = {"epochs": epochs, "learning_rate": RATE} if space is None else space
    definition = Definition(
        dataset=DatasetReference(name="mnist", samples=samples, shape=(1, 28, 28)),
        objectives=(Objective(metric="val_accuracy", direction="maximize"),),
        sampler=ComponentSpec(name=sampler, options=dict(options or {})),
        pruner=ComponentSpec(name="none"),
        seed=0,
        parameters=dict(parameters),
    )
    parsed, rng = definition.space, np.random.default_rng(1)
    rows = []
    for number in range(count):
        params = parsed.draw(rng.random(len(parsed.varied)).tolist())
        config = definition.config(parsed.values(params))
        value = values(config.model_dump())
        shown = curve or healthy
        table = [{"epoch": e, **shown(value, e)} for e in range(1, epochs + 1)]
        rows.append(
            change(
                TrialRow(number, "COMPLETE", (value,), params, config, table, best_epoch=7 if epochs >= 7 else epochs)
            )
        )
    return Results("s", "sqlite://", definition, Budget(trials=count), parsed, tuple(rows), left, None)


def healthy(value: float, epoch: int) -> dict[str, float]:
    gain = 1 - 0.4 ** min(epoch, 7)
    return {"train_loss": 1 / epoch, "val_loss": 0.3 + 1 / epoch, "val_accuracy": value * gain}


def shown(check: str, results: Results, evaluations: Sequence[EvaluationResults] = ()) -> list[Finding]:
    return [f for f in run_checks(results, evaluations) if f.check == check]


def choice(bad: float) -> Callable[[Mapping[str, Any]], float]:
    return lambda v: 0.9 - 0.02 * abs(math.log10(v["learning_rate"]) + 2.5) - bad * (v["optimizer"] == "sgd")


TWO = {"epochs": 10, "optimizer": ["adam", "sgd"], "learning_rate": RATE}
APART = {**TWO, "learning_rate": [{**RATE, "when": {"optimizer": "adam"}}, {**RATE, "when": {"optimizer": "sgd"}}]}


def curves(**metrics: Callable[[int], float]) -> Results:
    return study(
        curve=lambda value, epoch: {**healthy(value, epoch), **{k: f(epoch) for k, f in metrics.items()}}, epochs=32
    )


def rate_rises(row: TrialRow) -> TrialRow:
    assert row.config
    bad = row.config.learning_rate > 10**-2.5
    table = [{**e, "train_loss": 1 / e["epoch"] if e["epoch"] < 5 else e["epoch"] / 5} for e in row.epochs]
    return replace(row, epochs=table) if bad else row


def diverged_above(row: TrialRow) -> TrialRow:
    assert row.config
    return replace(row, state="PRUNED", values=None, failure="diverged") if row.config.learning_rate > 10**-2.4 else row


def begun(row: TrialRow, before: int) -> TrialRow:
    """So many trials begin before the test set is read, the others after."""
    return replace(row, started=LOOKED + timedelta(minutes=row.number - before))


def evaluation(gain: float, *, test: bool = False) -> EvaluationResults:
    def runs(mean: float, label: str) -> CandidateRuns:
        noise = (0, 1, 2, 0, 1, 2) if label == "trial 3" else (1, 0, 2, 2, 0, 1)
        made = tuple(
            EvaluationRun(
                "e", i, i, "COMPLETE", {"val_accuracy": mean + 0.002 * noise[i]}, {"test_accuracy": 0.9} if test else {}
            )
            for i in range(6)
        )
        return CandidateRuns(
            label, 3 if label == "trial 3" else None, label != "trial 3", TrialConfig(), {}, None, made
        )

    objective = Objective(metric="val_accuracy", direction="maximize")
    return EvaluationResults(
        ("e",),
        "mnist",
        True,
        False,
        objective,
        (runs(0.9 + gain, "trial 3"), runs(0.9, "defaults")),
        0,
        test_set_read_at=LOOKED if test else None,
    )


def test_what_is_worse_on_the_test_set_gains_nothing() -> None:
    def told(gain: float) -> Finding:
        """By validation trial 3 is better by this; on the test set it is worse, by 0.01 on average."""
        found = evaluation(gain, test=True)
        scores = {"trial 3": (0.87, 0.92, 0.88), "defaults": (0.9, 0.9, 0.9)}
        candidates = tuple(
            replace(
                each,
                runs=tuple(
                    replace(run, test={"test_accuracy": score})
                    for run, score in zip(each.runs, scores[each.label], strict=False)
                ),
            )
            for each in found.candidates
        )
        [finding] = shown("retraining", plain(), [replace(found, candidates=candidates)])
        return finding

    worse, best = told(0.05), told(-0.05)
    assert worse.evidence.startswith(
        "trial 3 is worse than the default configuration by 0.01 from 3 fresh seeds (interval -"
    )
    assert worse.advice == "run more seeds: so far nothing is gained over the default configuration"
    assert best.evidence.startswith(
        "the default configuration is the best of those retrained: it gains 0.01 over trial 3"
    )


def spread_over(seeds: float, splits: float | None = None) -> EvaluationResults:
    """An evaluation whose scores vary by so much from seed to seed, and from split to split."""
    plain = evaluation(0.1)

    def runs(label: str, deviation: float) -> CandidateRuns:
        scores = [0.9 + deviation * each for each in (-1.0, 0.6, 1.0, -0.5, 0.2, -0.3)]
        made = tuple(EvaluationRun("e", i, i, "COMPLETE", {"val_accuracy": s}) for i, s in enumerate(scores))
        return CandidateRuns(label, 3, False, TrialConfig(), {}, None, made)

    seeded = replace(plain, candidates=(runs("trial 3", seeds),))
    if splits is None:
        return seeded
    return replace(seeded, varied={"split": replace(plain, candidates=(runs("trial 3", splits),), vary="split")})


COPY = {"column": "copy", "kind": "determines", "score": 1.0, "values": 2}
PRICE = {"name": "price", "skewness": 4.0, "outliers": 3, "low": 1.0, "median": 2.0, "high": 99.0}


def looked_at(**facts: Any) -> Results:
    """A study whose first worker has found these in its data."""
    basis = {"task": "classification", "train": 4000, "validation": 1000, "distinct": 5000, "columns_seen": 7}
    return replace(plain(), data_facts=DataFacts.model_validate({**basis, **facts}))


def overlap(equal: int) -> dict[str, Any]:
    return {"part": "validation", "samples": 1000, "equal": equal, "other": 0}


def shares(largest: float) -> dict[str, Any]:
    few = {"smallest": "b", "smallest_count": round(5000 * (1 - largest)), "rarest_in_validation": 50}
    return {"classes": 2, "largest": "a", "largest_share": largest, **few}


def lucky(v: Mapping[str, Any]) -> float:
    return 0.9 if abs(math.log10(v["learning_rate"]) + 2.5) < 0.02 else 0.5


def plain(count: int = 60, **keys: Any) -> Results:
    return study(count=count, **keys)


Case = tuple[str, Callable[[], tuple[Any, ...]], Callable[[], tuple[Any, ...]]]
CASES: list[Case] = [
    ("boundary", lambda: (study(lambda v: 0.9 + 0.05 * math.log10(v["learning_rate"])),), lambda: (plain(),)),
    ("axis", lambda: (study(lambda v: 0.8 + 0.1 * math.sin(1e9 * v["learning_rate"])),), lambda: (plain(),)),
    (
        "density",
        lambda: (study(lambda v: 0.9 * math.exp(-abs(math.log10(v["learning_rate"]) + 2.5) * 8), count=20),),
        lambda: (study(lambda v: 0.9, count=20),),
    ),
    (
        "budget",
        lambda: (study(lambda v: 0.9 * math.exp(-abs(math.log10(v["learning_rate"]) + 2.5) * 8), count=16),),
        lambda: (plain(400),),
    ),
    ("infeasible", lambda: (study(change=diverged_above),), lambda: (plain(),)),
    ("stability", lambda: (study(change=diverged_above),), lambda: (plain(),)),
    ("rising", lambda: (study(change=rate_rises),), lambda: (plain(),)),
    ("overfitting", lambda: (curves(val_loss=lambda e: abs(e - 8) + 1.0),), lambda: (plain(),)),
    ("rough", lambda: (curves(val_accuracy=lambda e: 0.7 + 0.1 * (e * 7919 % 5 % 2)),), lambda: (plain(),)),
    ("improving", lambda: (curves(val_accuracy=lambda e: e / 40),), lambda: (plain(),)),
    ("flat", lambda: (curves(val_accuracy=lambda e: 0.9 - 0.5 * (e < 3)),), lambda: (plain(samples=10**8),)),
    ("best_epoch", lambda: (study(change=lambda r: replace(r, best_epoch=1)),), lambda: (plain(),)),
    ("training_loss", lambda: (curves(train_loss=float),), lambda: (plain(),)),
    (
        "periodic",
        lambda: (curves(val_accuracy=lambda e: 0.8 + 0.1 * math.sin(2 * math.pi * e / 4)),),
        lambda: (study(epochs=32),),
    ),
    ("isolation", lambda: (study(choice(0.2), space=APART),), lambda: (study(choice(0.0), space=APART),)),
    (
        "fairness",
        lambda: (
            replace(
                r := study(choice(0), space=APART),
                trials=tuple(t for t in r.trials if t.params["optimizer"] == "adam" or t.number < 6),
            ),
        ),
        lambda: (study(choice(0), space=APART),),
    ),
    (
        "fixed",
        lambda: (study(space={"epochs": 10, "learning_rate": 0.01, "dropout": {"low": 0.0, "high": 0.5}}),),
        lambda: (plain(),),
    ),
    ("conditional", lambda: (study(choice(0), space=TWO),), lambda: (study(choice(0), space=APART),)),
    ("patterns", lambda: (study(space={"epochs": {"low": 2, "high": 9}, "learning_rate": RATE}),), lambda: (plain(),)),
    ("retraining", lambda: (plain(), [evaluation(0.0005)]), lambda: (plain(), [evaluation(0.05)])),
    (
        "search_seed",
        lambda: (study(lambda v: 0.9 * math.exp(-abs(math.log10(v["learning_rate"]) + 2.5) * 8), count=20),),
        lambda: (plain(400),),
    ),
    ("checkpoint", lambda: (study(change=lambda r: replace(r, epochs=r.epochs[::2])),), lambda: (plain(),)),
    (
        "warm_up",
        lambda: (study(space={"epochs": 10, "learning_rate": RATE, "schedule": "cosine", "warmup": 0.2}),),
        lambda: (plain(),),
    ),
    (
        "adam",
        lambda: (
            study(
                space={"epochs": 10, "optimizer": "adam", "learning_rate": RATE, "beta1": {"low": 0.8, "high": 0.95}},
                count=8,
            ),
        ),
        lambda: (plain(),),
    ),
    (
        "noise",
        lambda: (study(lambda v: 0.9 + 0.001 * math.sin(1e9 * v["learning_rate"]), samples=6000),),
        lambda: (study(count=20, samples=10**8),),
    ),
    ("order", lambda: (plain(left=5), [evaluation(0.1, test=True)]), lambda: (plain(),)),
    (
        "order",
        lambda: (plain(change=lambda row: begun(row, 30)), [evaluation(0.1, test=True)]),
        lambda: (plain(change=lambda row: begun(row, 60)), [evaluation(0.1, test=True)]),
    ),
    ("seeds", lambda: (study(), [spread_over(0.1)]), lambda: (study(), [spread_over(0.001)])),
    ("split", lambda: (study(), [spread_over(0.001, 0.02)]), lambda: (study(), [spread_over(0.02, 0.01)])),
    ("record", lambda: (plain(left=5),), lambda: (plain(),)),
    ("duplicates", lambda: (looked_at(overlaps=[overlap(30)]),), lambda: (looked_at(overlaps=[overlap(0)]),)),
    ("leaks", lambda: (looked_at(columns=[COPY]),), lambda: (looked_at(),)),
    ("balance", lambda: (looked_at(classes=shares(0.95)),), lambda: (looked_at(classes=shares(0.6)),)),
    ("validation_set", lambda: (looked_at(validation=40),), lambda: (looked_at(classes=shares(0.6)),)),
    ("targets", lambda: (looked_at(task="regression", targets=[PRICE]),), lambda: (looked_at(task="regression"),)),
]


@pytest.mark.parametrize(("check", "fault", "twin"), CASES, ids=[case[0] for case in CASES])
def test_a_check_sees_the_fault_and_is_silent_on_the_healthy_twin(check: str, fault: Any, twin: Any) -> None:
    assert {f.level for f in shown(check, *fault())} & {"note", "warning"}
    assert {f.level for f in shown(check, *twin())} == {"ok"}


def test_a_curve_that_flips_from_one_epoch_to_the_next_has_no_more_than_all_its_variance() -> None:
    (flips,) = shown("periodic", curves(val_accuracy=lambda e: 0.8 + 0.1 * (-1) ** e))
    assert "one frequency holds 99 % of the variance" in flips.evidence
    half = lambda e: 0.8 + 0.1 * (-1) ** e + 0.1 * (1, 1, -1, -1, 1, -1, -1)[e % 7]  # noqa: E731
    (mixed,) = shown("periodic", curves(val_accuracy=half))
    assert mixed.level == "ok"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_value_whose_trials_are_better_than_those_of_the_best_trial_is_kept(sign: int) -> None:
    lucky = study(choice(0.0), space=APART)
    rows = [replace(row, values=(0.9 - row.number / 1000,)) for row in lucky.trials]
    lifted = next(row for row in reversed(rows) if row.params["optimizer"] == "sgd")
    worse = [replace(r, values=(0.7 - r.number / 1000,)) if r.params["optimizer"] == "sgd" else r for r in rows]
    objective = Objective(metric="val_loss", direction="minimize") if sign < 0 else MAXIMIZED
    definition = lucky.definition.model_copy(update={"objectives": (objective,)})

    def level(made: Sequence[TrialRow]) -> str:
        trials = tuple(replace(row, values=(sign * (row.value or 0.0),)) for row in made)
        [finding] = shown("isolation", replace(lucky, definition=definition, trials=trials))
        return finding.level

    assert level(worse) == "note"
    assert level([replace(row, values=(0.99,)) if row.number == lifted.number else row for row in worse]) == "ok"


def test_a_negative_loss_rises_where_it_ends_above_its_lowest() -> None:
    for check, metric in (("overfitting", "val_loss"), ("rising", "train_loss")):
        levels = {}
        for last in (-0.65, -0.64, -0.4):
            made = curves(**{metric: lambda e, last=last: last if e == 32 else max(-0.65, 0.3 - e / 10)})
            [levels[last]] = [finding.level for finding in shown(check, made)]
        assert levels[-0.65] == levels[-0.64] == "ok"
        assert levels[-0.4] in ("note", "warning")


def test_there_are_28_checks_and_each_says_something() -> None:
    names = [check.__name__ for check in CHECKS]
    assert len(set(names)) == 28
    assert {f.check for f in run_checks(plain())} == set(names)
    assert [f.level for f in shown("clipping", plain())] == ["unknown"]


def test_checks_of_chance_say_nothing_where_nothing_was_evaluated() -> None:
    names = {check.__name__ for check in CHANCE_CHECKS}
    assert not {f.check for f in run_checks(plain())} & names
    assert {f.check for f in run_checks(study(), [spread_over(0.01)])} & names == {"seeds"}


def test_the_split_matters_where_it_changes_which_configuration_is_the_best() -> None:
    first, second = (0.9, 0.8, 0.9, 0.8, 0.9, 0.8), (0.85, 0.9, 0.8, 0.9, 0.8, 0.9)
    found = spread_over(0.08, 0.08)
    pair = tuple(
        replace(
            found.candidates[0],
            label=label,
            runs=tuple(EvaluationRun("e", i, i, "COMPLETE", {"val_accuracy": s}) for i, s in enumerate(scores)),
        )
        for label, scores in (("trial 3", first), ("trial 5", second))
    )
    (finding,) = shown("split", study(), [replace(found, varied={"split": replace(found, candidates=pair)})])
    assert "on 3 of 6 splits another configuration is the best" in finding.evidence


def test_checks_of_the_data_say_nothing_where_nobody_has_looked() -> None:
    names = {check.__name__ for check in DATA_CHECKS}
    assert not {f.check for f in run_checks(plain())} & names
    assert {f.check for f in run_checks(looked_at())} & names == {"leaks", "validation_set"}
    assert {f.check for f in run_checks(looked_at(unlabelled=3))} & names == {"leaks", "validation_set", "unlabelled"}


def of_folds(values: np.ndarray[Any, Any], resampling: Resampling | None = None, **keys: Any) -> Results:
    """A study whose trials have these accuracies on each of their folds, or of other fits: (trials, fits)."""
    plain_study = study(count=len(values))
    rows = [
        replace(
            row,
            best_epoch=1,
            values=(float(each.mean()),),
            fits={fit: [{"epoch": 1, "val_accuracy": float(value)}] for fit, value in enumerate(each)},
        )
        for row, each in zip(plain_study.trials, values, strict=True)
    ]
    keys["resampling"] = resampling or Resampling(folds=values.shape[1])
    definition = plain_study.definition.model_copy(update=keys)
    return replace(plain_study, trials=tuple(rows), definition=definition)


@pytest.mark.parametrize("given", [{"warmup_epochs": 2}, {"warmup_steps": 64}, {"warmup": 0.2}])
def test_a_warmup_in_any_unit_has_its_share_of_the_steps(given: dict[str, float]) -> None:
    """Of 4000 samples in batches of 128: 32 steps an epoch."""
    seen = study(space={"epochs": 10, "learning_rate": RATE, **given})
    (found,) = warm_up(replace(seen, data_facts=looked_at().data_facts), [])
    assert found.evidence == "warm-up takes 20 % of the best trial's steps"
    assert (found.level, found.parameters) == ("note", tuple(given))
    assert bool(warm_up(seen, [])) == ("warmup_steps" not in given)


def test_folds_that_disagree_and_a_fold_unlike_the_others_are_found() -> None:
    rng = np.random.default_rng(5)
    noise, quality = rng.normal(0, 0.01, (8, 5)), np.linspace(0.7, 0.9, 8)[:, None]
    [agreeing] = shown("folds", of_folds(quality + noise))
    assert (agreeing.level, agreeing.title) == ("ok", "folds that agree")
    assert "trial 7 is the best of all, and the best in 5 of 5 fits" in agreeing.evidence
    [disagreeing] = shown("folds", of_folds(0.8 + noise))
    assert (disagreeing.level, disagreeing.title) == ("warning", "folds that disagree")
    odd = quality + noise - 0.3 * (np.arange(5) == 2)
    assert "fold 3 of 5 has a mean validation accuracy of 49.39 %" in shown("folds", of_folds(odd))[0].evidence
    assert not shown("folds", plain())
    assert not shown("folds", of_folds(0.8 + noise, resplit="per_trial"))  # no two trials have a fold in common


def test_fits_that_disagree_are_called_what_they_are() -> None:
    values = 0.8 + np.random.default_rng(5).normal(0, 0.01, (8, 5))
    [seeds] = shown("folds", of_folds(values, Resampling(seeds=5)))
    assert seeds.title == "seeds that disagree"
    assert seeds.evidence.endswith("which configuration is better depends on the seed")
    assert "use more seeds" in seeds.advice
    odd = values - 0.3 * (np.arange(5) == 2)
    splits, alone = shown("folds", of_folds(odd, Resampling(holdout=5)))
    assert (alone.title, splits.title) == ("a split unlike the others", "splits that disagree")
    assert "use more random splits" in splits.advice
    assert "fold" not in alone.evidence + alone.advice + splits.evidence + splits.advice


def test_the_best_of_all_folds_is_the_best_of_the_study() -> None:
    results = of_folds(np.random.default_rng(5).normal(0.8, 0.01, (8, 5)))
    last = results.trials[-1]
    equal = replace(last, values=(max(row.value or 0.0 for row in results.trials) + 1e-12,))
    [finding] = shown("folds", replace(results, trials=(*results.trials[:-1], equal)))
    assert f"trial {last.number} is the best of all" in finding.evidence


def runs(*scores: float, divided: bool = False, moved: Sequence[float] = ()) -> Any:
    """An evaluation of one configuration with these scores from fresh seeds, and with others on fresh splits."""
    [candidate, other] = [
        SimpleNamespace(baseline=False, scores=lambda _, each=each: dict(enumerate(each))) for each in (scores, moved)
    ]
    shared = {"on_own_data": True, "validation_metric": "val_accuracy", "divided": divided, "objective": MAXIMIZED}
    varied = {"split": SimpleNamespace(candidates=[other], **shared)} if len(moved) else {}
    return SimpleNamespace(candidates=[candidate], varied=varied, **shared)


def test_a_mean_over_fits_is_not_judged_by_single_runs() -> None:
    values = 0.8 + np.linspace(-0.02, 0.02, 16)[:, None] + np.zeros(5)
    single = study(lambda v: 0.8 + 0.01 * math.log10(v["learning_rate"]), count=16)
    spread = 0.8 + 0.015 * np.array([-1.0, 0.0, 1.0, -1.0, 1.0])
    evaluation = runs(*spread, divided=True, moved=0.8 + 0.1 * np.array([-1.0, 0.0, 1.0, -1.0, 1.0]))
    (alone,) = seeds(replace(single, trials=of_folds(values).trials), [evaluation])
    (means,) = seeds(of_folds(values), [evaluation])
    assert (alone.level, means.level) == ("warning", "ok")
    assert "as the mean over 5 fits" in means.evidence
    (moved,) = split(of_folds(values), [evaluation])
    assert (moved.level, moved.advice) == ("ok", "")
    own = single.definition.model_copy(update={"resplit": "per_trial"})  # a split of its own is no mean over splits
    (moved,) = split(replace(single, definition=own), [evaluation])
    assert moved.advice == "let a trial's value be the mean over folds"
    (moved,) = split(single, [runs(*spread, moved=0.8 + 0.1 * np.array([-1.0, 0.0, 1.0, -1.0, 1.0]))])
    assert (moved.level, moved.advice) == ("warning", "let a trial's value be the mean over folds")


def test_the_validation_samples_are_those_that_were_counted() -> None:
    assert count_validation_samples(plain()) == 10_000
    assert count_validation_samples(looked_at(validation=321)) == 321


def test_warnings_come_first_and_adaptive_evidence_says_that_it_is_weaker() -> None:
    found = run_checks(study(lambda v: 0.9 + 0.05 * math.log10(v["learning_rate"]), sampler="tpe"))
    assert found[0].level == "warning"
    assert "weaker" in next(f for f in found if f.check == "boundary").evidence


def test_of_pure_noise_no_winner_is_named() -> None:
    rng = np.random.default_rng(3)
    found = shown("noise", study(lambda _: rng.binomial(6000, 0.9) / 6000))
    assert found[0].level == "warning"
    assert found[0].title == "no winner among single runs"


@pytest.mark.parametrize("states", [("COMPLETE",), ("FAIL",), ("diverged",), ("COMPLETE", "PRUNED", "FAIL", "RUNNING")])
@pytest.mark.parametrize("trials", [1, 2, 12])
@pytest.mark.parametrize("objective", ["val_loss", ["val_accuracy", "parameter_count"]])
def test_nothing_raises_on_odd_studies(tmp_path: Path, states: Sequence[str], trials: int, objective: Any) -> None:
    keys = {"pruner": "none"} if isinstance(objective, list) else {}
    made = filled(tmp_path, states=states, trials=trials, objective=objective, **keys)
    if not isinstance(objective, list):
        add_foreign(made, {"learning_rate[optimizer=adam]": 50.0, "odd": "x"}, math.inf)
    results = read_results(made)
    assert run_checks(results)
    assert run_checks(replace(results, trials=()))
    nan = tuple(replace(row, values=(math.nan,) * len(results.objectives)) for row in results.trials)
    assert run_checks(replace(results, trials=nan))
