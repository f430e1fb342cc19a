"""What mattered: on studies whose truth is known, against Optuna's own evaluator and a count by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from hpo.report.chapters.blocks import Block, Text
from hpo.report.chapters.parameter_importance import group_by_value, parameter_importance_chapter
from hpo.report.data.results import read_results
from hpo.report.figures.plotly_spec import Figure
from hpo.report.stats.importance import compute_importances, compute_shares, list_ranked_trials
from hpo.study import Study
from tests.report.helpers import filled
from tests.study.helpers import make_study

SPACE: dict[str, Any] = {
    "optimizer": ["adam", "momentum"],
    "learning_rate": [
        {"low": 1e-4, "high": 1e-1, "log": True, "when": {"optimizer": "adam"}},
        {"low": 1e-2, "high": 1.0, "log": True, "when": {"optimizer": "momentum"}},
    ],
    "width": [16, 32, 64],
    "dropout": {"low": 0.0, "high": 0.5},
}


def drawn_trials(study: Study, count: int, constraint: bool = False) -> list[optuna.trial.FrozenTrial]:
    """Trials as random search makes them: only dropout matters, and width a little."""
    rng = np.random.default_rng(0)
    distributions = {dimension.key: dimension.domain.distribution() for dimension in study.space.varied}
    trials = []
    for i in range(count):
        params = study.space.draw(rng.random(len(study.space.varied)))
        value = 0.9 - float(params["dropout"]) + 0.0005 * float(params["width"]) + 0.01 * rng.normal()
        held = {key: distributions[key] for key in params}
        attrs = {"constraints:width <= 32": float(params["width"]) - 32} if constraint else {}
        trial = optuna.trial.create_trial(params=params, distributions=held, values=[value], system_attrs=attrs)
        trial._trial_id = trial.number = i  # Optuna's evaluator knows trials by their ids
        trials.append(trial)
    return trials


def blocks_of(study: Study) -> Sequence[Block]:
    results = read_results(study)
    return parameter_importance_chapter(study, results, compute_importances(study, results)).blocks


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path, "known", parameters=SPACE, trials=1)


def test_the_parameter_that_matters_is_found_with_an_interval_that_holds_its_share(study: Study) -> None:
    trials = drawn_trials(study, 300)
    keys = [dimension.key for dimension in study.space.varied]
    found = compute_shares(study, keys, trials)
    assert found[0].key == "dropout"
    assert found[0].low > 0.5
    assert sum(share.value for share in found) == pytest.approx(1)
    assert all(0 <= share.low <= share.value <= share.high <= 1 for share in found)
    assert found == compute_shares(study, keys, trials)


def test_shares_are_those_of_optuna_itself(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=40)
    keys = ["depth", "dropout", "momentum"]
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    raw = evaluator.evaluate(study.optuna_study, keys)
    total = sum(raw.values())
    found = {share.key: share.value for share in compute_shares(study, keys, list_ranked_trials(study))}
    assert found == pytest.approx({key: value / total for key, value in raw.items()})


def test_more_trials_make_the_intervals_narrower(study: Study) -> None:
    few, many = (compute_shares(study, ["dropout", "width"], drawn_trials(study, n)) for n in (40, 800))
    assert many[0].high - many[0].low < few[0].high - few[0].low


def test_ten_thousand_trials_are_drawn_in_samples_and_the_words_say_so(study: Study, monkeypatch: Any) -> None:
    trials = drawn_trials(study, 10_000)
    for module in ("stats.importance", "chapters.parameter_importance"):
        monkeypatch.setattr(f"hpo.report.{module}.list_ranked_trials", lambda _: trials)
    text = next(block.text for block in blocks_of(study) if isinstance(block, Text))
    assert "10,000 complete trials" in text
    assert "each of 1,000 trials, drawn with replacement" in text


def test_conditional_parameters_are_in_a_figure_of_their_own(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=40)
    figures = {b.key: b for b in blocks_of(study) if isinstance(b, Figure)}
    plain, apart = figures["importance"].spec, figures["importance-conditional"].spec
    assert plain
    assert apart
    assert all("learning_rate" not in name for name in plain["data"][0]["y"])
    assert {name.split("<br>")[0] for name in apart["data"][0]["y"]} >= {"learning_rate"}
    assert plain["layout"]["xaxis"]["range"] == apart["layout"]["xaxis"]["range"]


def test_isolation_is_the_best_by_value_and_by_tenth_of_the_logarithm(study: Study) -> None:
    trials = drawn_trials(study, 200)
    dimensions = {dimension.key: dimension for dimension in study.space.varied}
    by_width = group_by_value(study, dimensions["width"], trials)
    for bucket in by_width:
        same = [t for t in trials if t.params["width"] == int(bucket.name)]
        assert (bucket.count, bucket.best[1]) == (len(same), max(t.values[0] for t in same))
    key = "learning_rate[optimizer=adam]"
    held = [t for t in trials if key in t.params]
    buckets = group_by_value(study, dimensions[key], trials)
    assert sum(bucket.count for bucket in buckets) == len(held)
    for bucket in buckets:
        tenth = round((math.log10(bucket.place) + 4) / 3 * 10 - 0.5)
        same = [t for t in held if math.floor((math.log10(t.params[key]) + 4) / 3 * 10) == tenth]
        assert (bucket.count, bucket.best[1]) == (len(same), max(t.values[0] for t in same))


def test_infeasible_trials_are_no_best_and_a_value_of_them_alone_is_marked(study: Study) -> None:
    width = next(dimension for dimension in study.space.varied if dimension.key == "width")
    found = {bucket.name: bucket for bucket in group_by_value(study, width, drawn_trials(study, 100, constraint=True))}
    assert [found[name].feasible for name in ("16", "32", "64")] == [True, True, False]
    assert found["64"].count == 0


def test_few_trials_and_no_parameters_say_why(tmp_path: Path) -> None:
    few = filled(tmp_path, "few", trials=3)
    figure = blocks_of(few)[0]
    assert isinstance(figure, Figure)
    assert figure.reason == "This needs at least 10 complete trials; there are 3."
    none = make_study(tmp_path, "none", parameters={"epochs": 1}, trials=1, sampler="random")
    figure = blocks_of(none)[0]
    assert isinstance(figure, Figure)
    assert figure.reason == "The study varies no parameter."


def test_hostile_texts_are_escaped(tmp_path: Path) -> None:
    study = make_study(tmp_path, "hostile", parameters={"widths": ["16", "32"]}, trials=1)
    trials = drawn_hostile()
    dimension = study.space.varied[0]
    from hpo.report.chapters.parameter_importance import _best_by_value_figure

    spec = _best_by_value_figure(study, dimension, 0, trials).spec
    assert "<script>" not in str(spec)
    assert "&lt;script&gt;" in str(spec)


def drawn_hostile() -> list[optuna.trial.FrozenTrial]:
    bad = optuna.distributions.CategoricalDistribution(["<script>alert(1)</script>"])
    return [optuna.trial.create_trial(params={"widths": bad.choices[0]}, distributions={"widths": bad}, values=[0.5])]
