"""The conclusion of a study that has settled: fresh seeds of its tied leaders while time is left, and a verdict."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from hpo.execution.conclusion import Conclusion, Verdict
from hpo.report.data.results import read_results
from hpo.report.export_config import choose_exported, export_config
from hpo.study import Budget, Study, StudyStorage
from hpo.study.definition import FunctionReference
from hpo.study.input.function_study import define_function_study
from hpo.study.operations.evaluation_study import evaluation_studies, list_test_set_reads, record_test_set_read
from tests.data import small_npz
from tests.helpers import run_hpo, train_here
from tests.study.helpers import SPACE, holder, make_study, new_storage

HOUR = 3600.0


class Clock:
    """Time that passes as a test says."""

    def __init__(self) -> None:
        self.now = 1_000_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(StudyStorage, "read_clock", lambda _: clock.now)
    return clock


def settled(
    folder: Path, *, tied: int = 3, timeout: str | None = "1h", step: float = 0.0001, smallest: int = 0, **keys: Any
) -> Study:
    """A study of at most 24 trials, some of which lead and are tied within the noise of 0.003."""
    table = {"dataset": str(small_npz(folder / "small.npz")), "until": "settled", "sampler": "random", "trials": 60}
    space = {**SPACE, "validation": 300}
    limits = {} if timeout is None else {"timeout": timeout}
    made = make_study(folder, **{**table, **limits, "parameters": space, **keys})
    made.start_clock()
    values = np.concatenate([0.9 - step * np.arange(tied), 0.85 - 0.0001 * np.arange(24 - tied)])
    for number, value in enumerate(values):
        claim = made.claim(holder())
        if claim is None:
            break
        made.suggest_config(claim)
        made.storage.set_trial_user_attr(claim.id, "standard_error", 0.003)
        made.storage.set_trial_user_attr(claim.id, "parameter_count", 9 - (number == smallest))
        made.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [float(value)])
    return made


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the database of a study that has settled, three trials of which are tied."""
    folder = tmp_path_factory.mktemp("template")
    settled(folder, timeout=None).storage.engine.dispose()
    return folder


@pytest.fixture
def untimed(template: Path, tmp_path: Path, clock: Clock) -> Study:
    """The study with its three tied trials, without a timeout."""
    shutil.copyfile(template / "studies.db", tmp_path / "studies.db")
    return Study(new_storage(tmp_path), "small")


@pytest.fixture
def tied(untimed: Study) -> Study:
    """The study with its three tied trials and a timeout, launched just now."""
    untimed.extend(Budget(trials=60, timeout=HOUR))
    untimed.start_clock()
    return untimed


def runner(clock: Clock, seconds: float, score: Callable[[str, int], float]) -> Callable[[Study, float], None]:
    """Runs of an evaluation that take so many seconds each, without training."""

    def run(evaluation: Study, deadline: float) -> None:
        evaluation.start_clock(deadline)
        while (claim := evaluation.claim(holder())) is not None:
            evaluation.suggest_config(claim)
            params = evaluation.storage.get_trial(claim.id).params
            value = score(str(params["configuration"]), int(params["seed"]))
            record_test_set_read(evaluation, claim.number, str(params["configuration"]))
            evaluation.storage.record_epoch(claim.id, 1, {"epoch": 1, "val_accuracy": value})
            evaluation.storage.set_trial_user_attr(claim.id, "best_epoch", 1)
            evaluation.storage.set_trial_user_attr(claim.id, "test_accuracy", value - 0.01)
            evaluation.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [value])
            clock.now += seconds

    return run


def leaders(made: Study) -> list[str]:
    found = read_results(made)
    return [f"trial {row.number}" for row in found.ranked if row.value is not None and row.value > 0.86]


@pytest.mark.parametrize("place", [0, 1])
def test_leaders_that_fresh_seeds_tell_apart_are_told_apart_soon(tied: Study, clock: Clock, place: int) -> None:
    first = leaders(tied)[place]

    def score(label: str, seed: int) -> float:
        return (0.95 if label == first else 0.8) + 0.001 * math.sin(seed)

    verdict = Conclusion(tied, runner(clock, 10, score)).conclude()
    (companion,) = evaluation_studies(tied)
    assert companion.budget.trials == 4 * 3  # three leaders and the defaults, from three seeds
    assert f"trial {verdict.trial}" == first
    assert verdict.lines[0].startswith(f"Trial {verdict.trial}: test accuracy 94.0")
    assert verdict.lines[1].startswith("It is better than ")
    exported = [f"export {first} with: hpo export", f"--{first}"]  # where the study's own best trial is another
    assert all(text in verdict.lines[2] for text in exported) if place else len(verdict.lines) == 2
    assert len(list_test_set_reads(tied)) == 12


def test_leaders_that_stay_tied_get_more_seeds_until_the_time_is_up(tied: Study, clock: Clock) -> None:
    noisy = {label: np.random.default_rng(place) for place, label in enumerate(leaders(tied))}

    def score(label: str, _: int) -> float:
        return 0.7 if label == "defaults" else 0.9 + 0.03 * noisy[label].standard_normal()

    lines = Conclusion(tied, runner(clock, 250, score)).conclude().lines
    (companion,) = evaluation_studies(tied)
    done = sum(trial.state == TrialState.COMPLETE for trial in companion.trials())
    assert done == 15  # in an hour
    assert companion.remaining() == 1
    assert "No winner: no significant difference from" in lines[1]
    # A later launch goes on with what is left.
    tied.start_clock()
    Conclusion(tied, runner(clock, 900, score)).conclude()
    assert sum(trial.state == TrialState.COMPLETE for trial in companion.trials()) == 15 + 4


def test_leaders_that_differ_by_less_than_the_noise_need_no_more_seeds(tied: Study, clock: Clock) -> None:
    same = runner(clock, 1, lambda label, seed: (0.7 if label == "defaults" else 0.9) + 0.0001 * math.sin(seed))
    Conclusion(tied, same).conclude()
    assert clock.now < 1_000_000 + 60


def test_where_the_defaults_are_better_the_verdict_says_to_keep_them(tied: Study, clock: Clock) -> None:
    verdict = Conclusion(tied, runner(clock, 1, lambda label, _: 0.95 if label == "defaults" else 0.9)).conclude()
    assert (verdict.trial, verdict.keeps_default) == (None, True)
    assert verdict.lines[0].startswith("The default configuration: test accuracy 94.00 %")
    assert verdict.lines[-1].startswith("keep the default configuration")


def test_the_trial_that_is_exported_is_among_the_leaders_that_get_fresh_seeds(tmp_path: Path, clock: Clock) -> None:
    made = settled(tmp_path, tied=8, step=0.0, smallest=7)
    assert choose_exported(made, read_results(made)).row.number == 7
    Conclusion(made, runner(clock, 1, lambda *_: 0.9)).conclude()
    (companion,) = evaluation_studies(made)
    assert companion.definition.evaluation is not None
    labels = [each.label for each in companion.definition.evaluation.candidates]
    assert len(labels) == 5 + 1
    assert "trial 7" in labels


def test_a_launch_prints_the_configuration_that_was_best_from_fresh_seeds(tmp_path: Path) -> None:
    made = settled(tmp_path)
    second = leaders(made)[1]
    seeds = runner(Clock(), 0, lambda label, seed: (0.95 if label == second else 0.8) + 0.001 * math.sin(seed))
    number = Conclusion(made, seeds).conclude().trial
    done = run_hpo("launch", "small", "--workers", "1", "--storage", made.storage.url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"verdict: Trial {number}: test accuracy 94.0" in done.stdout
    config = export_config(made, number)
    assert f"\nbest from fresh seeds, trial {number}:\n\n{config}" in done.stdout
    assert f"verdict: export trial {number} with: hpo export small --trial {number}" in done.stdout


def test_a_launch_prints_no_configuration_where_the_default_one_is_the_best(tmp_path: Path) -> None:
    made = settled(tmp_path)
    Conclusion(made, runner(Clock(), 0, lambda label, _: 0.95 if label == "defaults" else 0.8)).conclude()
    done = run_hpo("launch", "small", "--workers", "1", "--storage", made.storage.url, cwd=tmp_path)
    assert "verdict: keep the default configuration" in done.stdout
    assert "[parameters]" not in done.stdout


def test_a_signal_ends_it_without_a_verdict(tied: Study, clock: Clock) -> None:
    signals: list[bool] = []

    def run(evaluation: Study, _: float) -> None:
        signals.append(True)
        assert evaluation.remaining() == 12

    assert Conclusion(tied, run, lambda: bool(signals)).conclude() == Verdict()
    assert len(signals) == 1
    assert len(Conclusion(tied, runner(clock, 1, lambda *_: 0.9)).conclude().lines) == 2


def test_without_time_the_ties_are_named_with_the_command_that_breaks_them(untimed: Study, clock: Clock) -> None:
    made = untimed
    (line,) = Conclusion(made, lambda *_: pytest.fail("nothing is trained")).conclude().lines
    assert "are tied: they differ by less than the noise, 0.30 percentage points" in line
    assert "hpo launch small --timeout 10m" in line
    made.extend(Budget(trials=60, timeout=HOUR))
    made.start_clock()
    clock.now += HOUR
    late = Conclusion(made, lambda *_: pytest.fail("the time is up"))
    assert "hpo launch small" in late.conclude().lines[0]
    made.start_clock()
    verdict = Conclusion(made, runner(clock, 1, lambda label, _: 0.9 if label == "defaults" else 0.95)).conclude()
    clock.now += HOUR
    assert verdict.trial is not None
    assert late.conclude() == verdict  # by the seeds that have been trained


def test_one_leader_needs_no_seeds_and_a_study_that_goes_on_has_no_verdict(tmp_path: Path, clock: Clock) -> None:
    made = settled(tmp_path, tied=1)
    never = Conclusion(made, lambda *_: pytest.fail("nothing is trained"))
    assert "leads by more than the noise" in never.conclude().lines[0]
    made.extend(Budget(trials=60, until="trials"))
    assert never.conclude() == Verdict()
    other = make_study(tmp_path, "begun", until="settled", trials=60)
    assert Conclusion(other, lambda *_: pytest.fail("it has not settled")).conclude() == Verdict()


def test_a_failed_trial_leaves_none_that_is_expected_to_gain(tmp_path: Path, clock: Clock) -> None:
    made = make_study(tmp_path, until="settled", trials=24)
    for number in range(24):
        claim = made.claim(holder())
        assert claim is not None
        made.suggest_config(claim)
        made.storage.set_trial_user_attr(claim.id, "standard_error", 0.001)
        state, values = (TrialState.COMPLETE, [0.02 * number]) if number != 5 else (TrialState.FAIL, None)
        made.storage.set_trial_state_values(claim.id, state, values)
    assert made.remaining() == 0
    (line,) = Conclusion(made, lambda *_: pytest.fail("nothing is trained")).conclude().lines
    assert line.startswith("trial 23 leads by more than the noise")


def test_noise_is_said_to_be_noise(tmp_path: Path, clock: Clock) -> None:
    rng = np.random.default_rng(0)
    noise = make_study(tmp_path, "noise", until="settled", trials=60, timeout="1h")
    noise.start_clock()
    while (claim := noise.claim(holder())) is not None:
        noise.suggest_config(claim)
        noise.storage.set_trial_user_attr(claim.id, "standard_error", 0.02)
        noise.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [0.33 + 0.02 * rng.standard_normal()])
    assert noise.has_settled()
    (line,) = Conclusion(noise, lambda *_: pytest.fail("of noise nothing is trained again")).conclude().lines
    assert line.startswith("no configuration is better than the others: the best validation accuracy of ")
    assert "the best of as many equal configurations" in line


def test_a_function_that_takes_no_seed_is_not_called_again(tmp_path: Path, clock: Clock) -> None:
    keys = {"trials": 60, "until": "settled", "sampler": "random", "pruner": "none", "timeout": "1h"}
    reference = FunctionReference(name="f")
    name, definition, budget = define_function_study(reference, "called", keys)
    made = Study.create(new_storage(tmp_path), name, definition, budget)
    made.start_clock()
    for place in range(24):
        claim = made.claim(holder())
        if claim is None:
            break
        made.storage.set_trial_user_attr(claim.id, "standard_error", 0.003)
        value = (0.1 if place < 3 else 0.15) + 0.0001 * place
        claim.trial.suggest_float("x", 0, 1)
        made.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [value])
    function = SimpleNamespace(call=None, reference=reference)
    lines = Conclusion(made, lambda *_: pytest.fail("it is not called"), function=function).conclude().lines  # type: ignore[arg-type]
    assert "are tied" in lines[0]
    assert "takes no seed" in lines[1]


FILE = """
dataset = "{data}"
sampler = "random"
trials = 60
until = "settled"
timeout = "1h"

[parameters]
widths = "4"
epochs = 1
learning_rate = {{ low = 0.001, high = 0.1, log = true }}
"""


def test_a_launch_on_noise_ends_by_itself_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))
    arrays = dict(np.load(small_npz(tmp_path / "small.npz")))
    arrays["y_train"] = np.random.default_rng(5).permutation(arrays["y_train"])
    np.savez(tmp_path / "permuted.npz", **arrays)
    file = tmp_path / "noise.toml"
    file.write_text(FILE.format(data=tmp_path / "permuted.npz"))
    train_here(str(file), cwd=tmp_path)
    done = run_hpo("launch", str(file), "--workers", "1", cwd=tmp_path)
    assert done.returncode == 0
    assert "has ended, it has settled: after " in done.stderr
    assert "verdict: nothing was found: the best validation accuracy of " in done.stdout
    shown = run_hpo("show", "noise", cwd=tmp_path).stdout
    assert "the study ends once it has settled" in shown
