"""What a launch says of trials that are trained one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpo.config.trial_config import TrialConfig
from hpo.errors import DataError
from hpo.execution.cost_estimate import cost_notice
from hpo.execution.launch import LaunchPlan, plan_launch
from hpo.study import Definition
from hpo.study.slots import fixed_trials
from hpo.training.step_cost import StepCost
from tests.data import small_npz
from tests.helpers import run_hpo

GRID = {"optimizer": ["adam", "lbfgs"], "epochs": [1, 2], "widths": ["4", "5"]}


def planned(folder: Path, sampler: str = "grid", **parameters: object) -> LaunchPlan:
    data = str(small_npz(folder / "small.npz"))
    trials = None if sampler == "grid" else 7
    return plan_launch(
        None, name="one", dataset=data, sampler=sampler, trials=trials, parameters={**GRID, **parameters}
    )


class Stopwatch:
    """Says that everything takes so many seconds, and keeps what it was asked."""

    def __init__(self, seconds: float = 7200.0) -> None:
        self.seconds = seconds
        self.asked: list[tuple[list[TrialConfig], int, str]] = []

    def __call__(self, configs: Sequence[TrialConfig], definition: Definition, threads: int, device: str) -> StepCost:
        self.asked.append((list(configs), threads, device))
        return StepCost(len(configs), 2, 1, self.seconds)


def test_the_line_has_the_counts_the_time_and_the_way_out(tmp_path: Path) -> None:
    stopwatch = Stopwatch()
    assert cost_notice(planned(tmp_path), None, 3, "cpu", stopwatch) == (
        "4 of 8 trials use lbfgs, which trains one by one: about 2 h of one worker (2 runs, for one run answers all "
        "its numbers of epochs; measured on 1 of them; leave them out with --set 'optimizer=[\"adam\"]')"
    )
    ((configs, threads, device),) = stopwatch.asked
    assert (threads, device) == (3, "cpu")
    assert [(c.optimizer, c.epochs, c.widths) for c in configs] == [
        ("lbfgs", epochs, widths) for epochs in (1, 2) for widths in ("4", "5")
    ]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.6, "about 1 s "), (119.0, "about 119 s "), (300.0, "about 5 min "), (9e4, "about 25 h ")]
)
def test_times_in_words(tmp_path: Path, seconds: float, words: str) -> None:
    line = cost_notice(planned(tmp_path), None, 1, "cpu", Stopwatch(seconds))
    assert line is not None
    assert words in line


def test_nothing_is_said_or_measured_without_such_trials(tmp_path: Path) -> None:
    stopwatch = Stopwatch()
    for given in (planned(tmp_path, optimizer=["adam", "sgd"]), planned(tmp_path, "tpe")):
        assert cost_notice(given, None, 1, "cpu", stopwatch) is None
    assert stopwatch.asked == []


def test_a_random_studys_trials_are_counted_exactly(tmp_path: Path) -> None:
    given = planned(tmp_path, "random")
    drawn = [params["optimizer"] for params in fixed_trials(given.definition, 0, 7)]
    assert 0 < drawn.count("lbfgs") < 7
    line = cost_notice(given, None, 1, "cpu", Stopwatch())
    assert line is not None
    assert line.startswith(f"{drawn.count('lbfgs')} of 7 trials use lbfgs")


def test_no_way_out_is_told_where_there_is_none(tmp_path: Path) -> None:
    line = cost_notice(planned(tmp_path, optimizer="lbfgs"), None, 1, "cpu", Stopwatch())
    assert line is not None
    assert "--set" not in line


def test_of_a_study_that_goes_on_what_is_left_counts(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    given = planned(tmp_path)
    study = given.create(storage)
    lbfgs = [
        number for number, params in enumerate(fixed_trials(given.definition, 0, 8)) if params["optimizer"] == "lbfgs"
    ]

    def finish(*numbers: int) -> None:
        for number in numbers:
            trial_id = study.trials()[number]._trial_id
            study.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
            study.storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5])

    finish(0, *lbfgs[:3])
    line = cost_notice(given, storage, 1, "cpu", Stopwatch())
    assert line is not None
    assert line.startswith("1 of 4 trials use lbfgs")
    assert "--set" not in line  # its definition stands
    finish(lbfgs[3])
    assert cost_notice(given, storage, 1, "cpu", Stopwatch()) is None


def test_a_measurement_that_fails_is_said_and_stops_nothing(tmp_path: Path) -> None:
    def fails(*_: object) -> StepCost:
        raise DataError("small.npz: not found;\nget it")

    assert cost_notice(planned(tmp_path), None, 1, "cpu", fails) == (
        "4 of 8 trials use lbfgs, which trains one by one: for how long could not be measured "
        "(small.npz: not found; get it)"
    )


def test_launch_says_it_before_it_begins(tmp_path: Path) -> None:
    data = small_npz(tmp_path / "small.npz")
    (tmp_path / "one.toml").write_text(
        f'dataset = "{data}"\nsampler = "grid"\n[parameters]\nwidths = "4"\nepochs = 1\noptimizer = ["lbfgs", "sgd"]\n'
    )
    for more in (["--dry-run"], ["--workers", "0"]):
        done = run_hpo("launch", "./one.toml", *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith("note: 1 of 2 trials use lbfgs, which trains one by one: about ")
        assert "(1 run; measured on 1 of them" in done.stderr
    without = run_hpo("launch", "./one.toml", "--set", "optimizer=sgd", "--name", "two", "--dry-run", cwd=tmp_path)
    assert without.stderr == ""
