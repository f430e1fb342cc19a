"""The price of what is trained one by one, exactly."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch

from hpo import datasets
from hpo.config.trial_config import TrialConfig
from hpo.training import step_cost as prices
from hpo.training.data import Data, prepare_data
from hpo.training.step_cost import distinct_runs, estimate_step_cost, seconds_per_step, total_seconds
from tests.data import small_npz


def config(**values: object) -> TrialConfig:
    return TrialConfig(**{"optimizer": "lbfgs", "depth": 1, "width": 4, **values})


@pytest.fixture
def data(tmp_path: Path) -> Data:
    dataset = datasets.load(datasets.make_reference(str(small_npz(tmp_path / "small.npz"))))
    return prepare_data(dataset, TrialConfig(), torch.device("cpu"))


def test_the_longest_run_answers_the_others_where_the_rate_is_constant() -> None:
    constant = [config(epochs=epochs, width=width) for epochs in (4, 32, 1) for width in (4, 5)]
    assert distinct_runs(constant) == [config(epochs=32, width=4), config(epochs=32, width=5)]
    falling = [config(epochs=epochs, schedule="linear") for epochs in (4, 32, 1)]
    assert distinct_runs(falling) == falling


def test_what_was_not_measured_costs_as_the_nearest() -> None:
    runs = [config(epochs=epochs, batch_size=4) for epochs in (1, 2, 4, 8, 16)]
    # The first two cost 1, the third is as near to either and takes the first's, the others cost 10.
    assert total_seconds(runs, {4: 100}.__getitem__, {0: 1.0, 4: 10.0}) == 100 * (1 + 2 + 4 + 80 + 160)


def test_every_run_is_measured_where_they_are_few(data: Data) -> None:
    sizes = (10, 20)
    configs = [config(epochs=epochs, batch_size=size) for epochs in (1, 2, 3) for size in sizes]
    found = estimate_step_cost(configs, data, lambda run, _: run.batch_size / 1000)
    assert (found.trials, found.runs, found.measured) == (6, 2, 2)
    samples = len(data.y_train)
    assert found.seconds == pytest.approx(sum(3 * math.ceil(samples / size) * size / 1000 for size in sizes))


def test_many_runs_are_measured_on_an_even_sample(data: Data) -> None:
    configs = [config(width=width, batch_size=size) for width in range(1, 51) for size in (10, 20, 30)]
    seen: list[TrialConfig] = []

    def measure(run: TrialConfig, _: Data) -> float:
        seen.append(run)
        return 1.0

    found = estimate_step_cost(configs, data, measure)
    assert (found.runs, found.measured) == (150, prices.SAMPLE)
    assert {size: sum(run.batch_size == size for run in seen) for size in (10, 20, 30)} == {10: 10, 20: 10, 30: 10}
    assert found.seconds == sum(data.steps(run.batch_size) * run.epochs for run in configs)


def test_measuring_ends_when_its_time_is_over_but_not_before_the_first(data: Data) -> None:
    configs = [config(width=width) for width in range(1, 21)]
    clock = itertools.count(0.0, prices.LIMIT / 2).__next__
    assert estimate_step_cost(configs, data, lambda *_: 1.0, clock).measured == 3
    late = itertools.count(0.0, 1000.0).__next__
    assert estimate_step_cost(configs, data, lambda *_: 1.0, late).measured == 1


def test_a_step_is_measured_with_the_real_learner(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    real = prices.ModuleLearner.step

    def step(self: prices.ModuleLearner, x: torch.Tensor, y: torch.Tensor) -> None:
        steps.append(len(y))
        real(self, x, y)

    monkeypatch.setattr(prices.ModuleLearner, "step", step)
    ticks = iter([10.0, 12.5])
    monkeypatch.setattr(prices.time, "perf_counter", lambda: next(ticks))
    assert seconds_per_step(config(batch_size=32), data) == 2.5 / prices.STEPS
    assert steps == [32] * (1 + prices.STEPS)
