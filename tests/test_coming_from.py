"""What docs/from-optuna.md and docs/from-ray-tune.md say of bounds, against the real tools."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from ray import tune
from ray.tune.search.variant_generator import generate_variants

from hpo.space import Float, Int
from hpo.study.foreign.readers import read_search
from hpo.study.foreign.search import Choices, Range
from tests.helpers import ROOT

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


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        ("tune.randint(1, 4)", {1, 2, 3}),
        ("tune.qrandint(2, 8, 2)", {2, 4, 6, 8}),
        ("tune.qrandint(2, 9, 2)", {2, 4, 6, 8}),
        ("tune.qrandint(1, 4, 1)", {1, 2, 3}),
        ("tune.lograndint(1, 4)", {1, 2, 3}),
        ("tune.qlograndint(1, 4, 1)", {1, 2, 3}),
        ("tune.quniform(0.0, 1.0, 0.25)", {0.0, 0.25, 0.5, 0.75, 1.0}),
        ("tune.choice([1, 'a'])", {1, "a"}),
    ],
)
def test_an_import_has_the_values_that_ray_tune_draws(expression: str, values: set[float], tmp_path: Path) -> None:
    np.random.seed(0)
    assert set(eval(expression, {"tune": tune}).sample(size=DRAWS)) == values
    (tmp_path / "space.py").write_text(f"from ray import tune\nspace = {{'x': {expression}}}\n")
    domain = read_search(tmp_path / "space.py").parameters[0].domain
    if isinstance(domain, Choices):
        assert set(domain.values) == values
    else:
        assert isinstance(domain, Range)
        step = domain.step or 1
        assert {domain.low + step * n for n in range(round((domain.high - domain.low) / step) + 1)} == values


def test_nested_spaces_have_the_conditions_that_ray_tune_resolves() -> None:
    file = ROOT / "tests" / "imports" / "ray_tune" / "nested.py"
    scope = runpy.run_path(str(file), run_name="nested")
    parameters = read_search(file).parameters
    for _ in range(20):
        _, drawn = next(generate_variants({"config": scope["search_space"]}))
        theirs = dict(flatten(drawn["config"]))
        ours = [each for each in parameters if all(theirs[name] in values for name, values in each.when.items())]
        assert {each.name for each in ours} == set(theirs)
        for each in ours:
            if isinstance(each.domain, Range):
                assert each.domain.low <= theirs[each.name] <= each.domain.high


def flatten(table: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


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
