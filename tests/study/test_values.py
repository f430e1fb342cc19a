"""A value of each type on its way: study file, space, trial, database, configuration, export, study file."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path
from typing import Any, Literal, get_args
from unittest.mock import patch

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from pydantic import create_model

from hpo.config import registry
from hpo.config.registry import ModelEntry
from hpo.config.trial_config import TrialConfig
from hpo.errors import RequestError
from hpo.report.chapters.reproduction import format_study_file
from hpo.report.data.results import read_results
from hpo.report.export_config import export_config
from hpo.report.figures.parallel_coordinates import parallel_coordinates_figure
from hpo.report.figures.slices import slice_figures
from hpo.report.stats.importance import compute_importances
from hpo.space import Choices, Constant, Space
from hpo.study import Study, StudyStorage
from hpo.study.foreign.import_study import import_study
from hpo.study.foreign.imported import ImportOptions
from hpo.study.input.config_file import read_parameters
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.fork import fork_study
from hpo.utils.documents import parse_toml
from hpo.utils.toml import toml_value
from tests.study.helpers import holder, make_study, new_storage, sqlite_url

INTS = st.integers(-(2**53), 2**53)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
# By type: its values, beside None where that is one.
TYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (bool, st.booleans()),
    (bool | None, st.booleans()),
    (int, INTS),
    (int | None, INTS),
    (float | None, FLOATS),
    (str, TEXTS),
    (str | None, TEXTS.filter(lambda text: text != "none")),
    (Literal["none", "l2"], st.sampled_from(["none", "l2"])),
    (list[int], st.lists(INTS, max_size=4)),
    (list[float] | None, st.lists(FLOATS, max_size=3)),
    (list[str], st.lists(TEXTS, max_size=3)),
    (list[bool], st.lists(st.booleans(), max_size=3)),
    (tuple[int, ...], st.lists(INTS, max_size=3).map(tuple)),
    (list[list[int]], st.lists(st.lists(INTS, max_size=2), max_size=2)),
]


COUNT = itertools.count()


def register(**fields: Any) -> str:
    """Register a model with parameters of its own, and return its name."""
    name = f"valued-{next(COUNT)}"
    registry.models.add(ModelEntry(name, dict, __name__, create_model("Parameters", **fields), loop=True))
    return name


@st.composite
def choices(draw: st.DrawFn) -> dict[str, tuple[Any, list[Any]]]:
    """Draw a parameter of each type with its choices, as Python has them."""
    drawn = {}
    for index, (annotation, strategy) in enumerate(TYPES):
        optional = type(None) in get_args(annotation)
        values = st.lists(st.none() | strategy if optional else strategy, min_size=1, max_size=3, unique_by=repr)
        drawn[f"x{index}"] = annotation, draw(values)
    return drawn


@settings(max_examples=5, deadline=None)
@given(choices())
def test_values_survive_the_whole_way(drawn: dict[str, tuple[Any, list[Any]]]) -> None:
    model = register(**{name: (annotation, values[0]) for name, (annotation, values) in drawn.items()})
    text = f'objective = "val_loss"\ntrials = 2\nsampler = "random"\n[parameters]\nmodel = "{model}"\n'
    for name, (_, values) in drawn.items():
        listed = toml_value(["none" if value is None else value for value in values])
        text += f"{name} = {{ choices = {listed} }}\n"
    with tempfile.TemporaryDirectory() as folder, patch("hpo.space.space.PROBES", 4):
        parsed = parse_definition(parse_toml(text), "valued", Path(folder))
        study = Study.create(new_storage(Path(folder)), *parsed)
        for _ in range(2):
            trial = study.optuna_study.ask()
            check_values(drawn, trial, study.definition.config(study.space.suggest(trial)))
            study.optuna_study.tell(trial, 0.5)

        study = Study(StudyStorage(sqlite_url(Path(folder)), create=False), "valued")
        results = read_results(study)
        for row, trial in zip(results.trials, study.trials(), strict=True):
            for style in ("toml", "json", "yaml"):
                path = Path(folder) / f"config.{style}"
                path.write_text(export_config(results, row.number, style), encoding="utf-8")
                found = read_parameters(path)
                assert found == row.config
                check_values(drawn, trial, found)
        assert parse_definition(parse_toml(format_study_file(results)), "valued", Path(folder)) == parsed


def check_values(drawn: dict[str, tuple[Any, list[Any]]], trial: Any, config: TrialConfig) -> None:
    """Check that a configuration has the very values that the trial's choices stand for."""
    for name, (_, values) in drawn.items():
        index = int(trial.distributions[name].to_internal_repr(trial.params[name]))
        assert (getattr(config, name), type(getattr(config, name))) == (values[index], type(values[index]))


def optional_study(folder: Path, trials: int = 24, **keys: Any) -> Study:
    """A study of an optional number, a list and a switch, of which None, [8, 4] and True are best."""
    model = register(clip=(float | None, None), sizes=(list[int], [8]), norm=(bool, False), unit=(float, 0.5))
    space = {"clip": ["none", 1.0], "sizes": [[8, 4], [16]], "norm": [True, False], "unit": {"low": 0.0, "high": 1.0}}
    keys = {"sampler": "random", "parameters": {"model": model, **space}, **keys}
    study = make_study(folder, "optional", dataset="none", objective="val_loss", trials=trials, **keys)
    for _ in range(trials):
        trial = study.optuna_study.ask()
        config = study.definition.config(study.space.suggest(trial))
        value = (config.clip is not None) + (config.sizes != [8, 4]) + (not config.norm) + config.unit
        study.optuna_study.tell(trial, value)
    return study


def test_plain_optuna_reads_what_is_stored(tmp_path: Path) -> None:
    optional_study(tmp_path)
    plain = optuna.load_study(study_name="optional", storage=sqlite_url(tmp_path))
    assert {trial.params["clip"] for trial in plain.trials} == {None, 1.0}
    assert {trial.params["sizes"] for trial in plain.trials} == {"[8, 4]", "[16]"}
    assert {trial.params["norm"] for trial in plain.trials} == {True, False}
    assert optuna.importance.get_param_importances(plain).keys() == {"clip", "sizes", "norm", "unit"}


def test_reports_name_none_lists_and_switches(tmp_path: Path) -> None:
    study = optional_study(tmp_path)
    results = read_results(study)
    assert all(row.config is not None and results.settings(row)["clip"] in ("none", 1.0) for row in results.trials)
    assert {share.key for share in compute_importances(study, results).shares} == {"clip", "sizes", "norm", "unit"}
    shown = str([figure.spec for figure in slice_figures(results)])
    for label in ("'none'", "'[8, 4]'", "'true'", "'false'"):
        assert label in shown, label
        assert label.strip("'") in str(parallel_coordinates_figure(results).spec)


def test_forks_keep_trials_with_none_and_lists(tmp_path: Path) -> None:
    study = optional_study(tmp_path)
    fork = fork_study(study, "fork", {"clip": "none", "sizes": [[8, 4], [16], [2]]})
    off = [trial.number for trial in study.trials() if trial.params["clip"] is None]
    assert sorted(trial.number for trial in fork.kept.values()) == off
    created = fork.create()
    assert [trial.params["sizes"] for trial in created.trials() if trial.state == TrialState.COMPLETE]


def test_baselines_and_warm_starts_hold_none_and_lists(tmp_path: Path) -> None:
    study = optional_study(
        tmp_path,
        4,
        sampler="tpe",
        baseline={"clip": "none", "sizes": [16], "norm": True},
        warm_start=[{"clip": "none", "sizes": [8, 4], "norm": False}],
    )
    assert study.definition.baseline == {"clip": "none", "sizes": "[16]", "norm": True}
    assert study.definition.warm_start == ({"clip": "none", "sizes": "[8, 4]", "norm": False},)
    assert Study(study.storage, "optional").definition == study.definition


def test_our_own_parameters_can_be_off(tmp_path: Path) -> None:
    space = Space(widths=["none", [8, 4], "16"], depth=[1, 2])
    assert space.domains["widths"] == (Choices(("none", "8-4", "16"), off=True),)
    assert sorted(map(str, space.grid())) == sorted(
        map(str, [{"widths": None, "depth": 1}, {"widths": None, "depth": 2}, {"widths": "8-4"}, {"widths": "16"}])
    )
    study = make_study(tmp_path, parameters={"widths": ["none", "8"], "depth": [1, 2], "width": 8}, sampler="qmc")
    while (claim := study.claim(holder())) is not None:
        config = study.suggest_config(claim)
        study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [0.5])
        assert config.widths in (None, "8")
    results = read_results(study)
    off = [row.number for row in results.trials if results.settings(row)["widths"] == "none"]
    assert off == [trial.number for trial in study.trials() if trial.params["widths"] is None]
    assert set(fork_study(study, "fork", {"widths": "none"}).kept) == set(off)


def test_a_list_of_numbers_is_one_value_of_widths() -> None:
    assert Space(widths=[512, 256]).domains["widths"] == (Constant("512-256"),)
    assert Space(widths=[[512, 256]]).domains["widths"] == (Choices(("512-256",)),)
    assert TrialConfig(widths=[512, 256]).hidden_widths == (512, 256)


def test_a_list_in_a_configuration_is_the_users_own() -> None:
    config = TrialConfig(model=register(x=(list[int], [1, 2])))
    config.x.append(3)
    assert config.x == [1, 2]


@pytest.mark.parametrize(
    ("annotation", "literal", "says"),
    [
        (list[int], [[1, "a"]], r"x = \[1, 'a'\]: must be list\[int\]; \[1\] should be a valid integer"),
        (list[int], 3, r"x = 3: must be list\[int\], not int"),
        (list[int], "none", r"x = 'none': must be list\[int\], not str"),
        (list[float], [[math.nan]], r"must be list\[float\]"),
        (tuple[int, int], [[1, 2, 3]], r"must be tuple\[int, int\]"),
        (float, ["none", 1.0], "x = 'none': must be a number, not str"),
        (float | None, ["off", 1.0], "x = 'off': must be a number, not str"),
        (bool, [0, 1], "x = 0: must be true or false, not int"),
    ],
)
def test_wrong_values_are_one_line(annotation: Any, literal: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says) as error:
        Space(model=register(x=(annotation, None)), x=literal)
    assert "\n" not in str(error.value)


def test_zero_turns_off_what_has_zero() -> None:
    with pytest.raises(RequestError, match="gradient_clip = 'none': must be a number, not str; 0 turns it off"):
        TrialConfig(gradient_clip="none")


def test_sweeps_hold_none_lists_and_switches(tmp_path: Path) -> None:
    model = register(clip=(float | None, None), sizes=(list[int], [8]), norm=(bool, False))
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        f"method: random\nmetric: {{name: val_loss, goal: minimize}}\nparameters:\n  model: {{value: {model}}}\n"
        "  clip: {values: [null, 1.0]}\n  sizes: {values: [[8, 4], [16]]}\n  norm: {values: [true, false]}\n"
    )
    space = parse_definition(import_study(sweep, ImportOptions(dataset="mnist")).table, "swept", tmp_path)[1].space
    assert space.domains["clip"] == (Choices(("none", 1.0), off=True),)
    assert space.domains["sizes"] == (Choices(("[8, 4]", "[16]")),)
    assert space.domains["norm"] == (Choices((True, False)),)
