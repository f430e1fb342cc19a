"""What docs/from-optuna.md and docs/from-ray-tune.md say of bounds, against the real tools."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from ray import tune

from hpo.space import Float, Int

DRAWS = 3000


@pytest.mark.parametrize(
    ("domain", "values"),
    [
        (tune.randint(1, 4), {1, 2, 3}),
        (tune.qrandint(2, 8, 2), {2, 4, 6, 8}),
        (tune.lograndint(1, 4), {1, 2, 3}),
        (tune.qlograndint(2, 8, 2), {2, 4, 6, 8}),
        (tune.quniform(0.0, 1.0, 0.25), {0.0, 0.25, 0.5, 0.75, 1.0}),
        (tune.qloguniform(1.0, 4.0, 1.0), {1.0, 2.0, 3.0, 4.0}),
    ],
)
def test_ray_tunes_bounds(domain: tune.search.sample.Domain, values: set[float]) -> None:
    np.random.seed(0)
    assert set(domain.sample(size=DRAWS)) == values


def test_ray_tunes_real_numbers_stay_below_the_upper_bound() -> None:
    np.random.seed(0)
    for domain in (tune.uniform(0.5, 1.0), tune.loguniform(0.5, 1.0)):
        drawn = np.array(domain.sample(size=DRAWS))
        assert 0.5 <= drawn.min() < 0.505
        assert 0.99 < drawn.max() < 1.0


def test_optunas_bounds_are_ours() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn: dict[str, set[float]] = {"whole": set(), "log": set(), "step": set()}
    for _ in range(400):
        trial = study.ask()
        drawn["whole"].add(trial.suggest_int("whole", 1, 3))
        drawn["log"].add(trial.suggest_int("log", 1, 3, log=True))
        drawn["step"].add(trial.suggest_float("step", 0.0, 1.0, step=0.5))
    assert drawn == {"whole": {1, 2, 3}, "log": {1, 2, 3}, "step": {0.0, 0.5, 1.0}}
    assert set(Int(1, 3).points()) == drawn["whole"]
    assert set(Float(0.0, 1.0, step=0.5).points()) == drawn["step"]
    real = optuna.distributions.FloatDistribution(0.0, 1.0)
    assert real._contains(1.0)
    assert real._contains(0.0)
