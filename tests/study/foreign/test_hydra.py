"""Configurations of Hydra: its grammar, constants and sweepers, against what hydra-core and OmegaConf make of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpo.errors import ImportRefusedError, RequestError
from hpo.study.foreign.hydra_values import ChoiceSweep, IntervalSweep, RangeSweep, parse_value
from hpo.study.foreign.import_study import import_study
from hpo.study.foreign.imported import ImportOptions
from hpo.study.foreign.loop_file import import_loop
from hpo.study.foreign.search import Constant
from tests.study.foreign.files import points, read, sweeper

# Hydra: what hydra-core 1.3.8 parses these texts to.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1, 2 ,a b", ChoiceSweep((1, 2, "a b"))),
        ("choice(1e-4, 'x, y', true, null)", ChoiceSweep((1e-4, "x, y", True, None))),
        ("[a,b],[c]", ChoiceSweep((["a", "b"], ["c"]))),
        ("range(5)", RangeSweep(0, 5)),
        ("range(start=1, stop=9, step=2)", RangeSweep(1, 9, 2)),
        ("shuffle(range(1, 4))", RangeSweep(1, 4, shuffled=True)),
        ("interval(1, 5)", IntervalSweep(1.0, 5.0)),
        ("tag(log, int(interval(8, 128)))", IntervalSweep(8, 128, frozenset({"log"}))),
        ("str(1, 2)", ChoiceSweep(("1", "2"))),
        ("10_000", 10_000),
        ("00012", "00012"),
        ("http://a.b/c", "http://a.b/c"),
        (r"a\,b", "a,b"),
        ("{a: 1, b: [2]}", {"a": 1, "b": [2]}),
        ("'it\\'s'", "it's"),
    ],
)
def test_hydras_grammar(text: str, value: object) -> None:
    assert parse_value(text) == value
    parsed = parse_value(text)
    if isinstance(parsed, IntervalSweep):  # equal numbers are of several types
        assert type(parsed.start) is type(value.start)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text", ["choice(", "range(1,2", "interval(1)", "nofunc(1)", "choice()", "glob(*)", "[" * 99, "a=b"]
)
def test_what_hydra_refuses_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(RequestError) as error:
        parse_value(text)
    assert "\n" not in str(error.value)


def test_the_end_of_hydras_range_belongs_to_it_in_the_optuna_sweeper_alone(tmp_path: Path) -> None:
    params = {"n": "range(1, 4)"}
    grid = {"_target_": "optuna.samplers.GridSampler"}
    found = [
        read(tmp_path, sweeper(name, params=params, **more), ".yaml").parameters[0].domain
        for name, more in (("basic", {}), ("optuna", {}), ("optuna", {"sampler": grid}), ("ax", {}))
    ]
    assert list(map(points, found)) == [{1, 2, 3}, {1, 2, 3, 4}, {1, 2, 3}, {1, 2, 3}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0), ("1E3", 1000.0), ("+1e3", 1000.0), ("-1e-3", -0.001), ("1_000e3", 1e6), ("1.e-3", 0.001),
        ("1.5E-5", 1.5e-5), (".5", 0.5), (".5e3", ".5e3"), (".5e-3", 0.0005), ("1_000", 1000), ("0x10", 16),
        ("0b11", 3), ("010", 8), ("1:30", 90), ("1_e3", "1_e3"), ("1e", "1e"), ("e3", "e3"), ("1e3x", "1e3x"),
        ("'1e3'", "1e3"), ("on", True), ("no", False), ("y", "y"), ("~", None), ("inf", "inf"), (".inf", math.inf),
    ],
)  # fmt: skip
def test_constants_of_hydra_are_what_omegaconf_makes_of_them(tmp_path: Path, text: str, value: object) -> None:
    """Compared with OmegaConf 2.4, whose numbers need no point before an exponent."""
    text = f"x: {text}\nz: ${{x}}\n{sweeper('basic', params={'y': '1, 2'})}"
    found = {each.name: each.domain for each in read(tmp_path, text, ".yaml").parameters}["x"]
    assert isinstance(found, Constant)
    assert (type(found.value), found.value) == (type(value), value)


# Sweepers.


def test_hydras_params_come_before_its_search_space(tmp_path: Path) -> None:
    space = {name: {"type": "int", "low": 1, "high": 3} for name in ("a.b", "c")}
    text = sweeper("optuna", params={"+a.b": "range(4, 6)", "d": "1,2"}, search_space=space)
    found = {each.name: points(each.domain) for each in read(tmp_path, text, ".yaml").parameters}
    assert found == {"a.b": {4, 5, 6}, "c": {1, 2, 3}, "d": {1, 2}}


@pytest.mark.parametrize(
    ("constants", "dataset"),
    [
        ({"data": {"dataset": "mnist", "_target_": "mine.Data"}}, "mnist"),
        ({"data": {"name": "MNIST"}}, "mnist"),
        ({"dataset": "mnist"}, "mnist"),
        ({"model": {"dataset": "mnist"}}, None),
        ({"data": {"_target_": "mine.Data"}}, None),
        ({"data": {"name": "mnist"}, "dataset": "cifar10"}, None),
    ],
)
def test_a_data_set_is_known_in_the_tables_of_data_alone(
    tmp_path: Path, constants: dict[str, Any], dataset: str | None
) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(sweeper("basic", params={"depth": "1,2"}) + yaml.safe_dump({"epochs": 1, **constants}), "utf-8")
    if dataset is None:
        with pytest.raises(ImportRefusedError) as error:
            import_study(path, ImportOptions())
        assert "name it with --dataset" in " ".join([*error.value.lines, str(error.value)])
    else:
        assert import_study(path, ImportOptions()).table["dataset"] == dataset


REST = "these settings of its sweeper have no equivalent: "


@pytest.mark.parametrize(
    ("name", "section", "options", "notes"),
    [
        ("optuna", {"sampler": {"_target_": "optuna.samplers.TPESampler", "seed": 1, "n_startup_trials": 5}},
         {"n_startup_trials": 5}, []),
        ("optuna", {"sampler": {"_target_": "optuna.samplers.TPESampler", "multivariate": False, "seed": "${seed}"}},
         {"multivariate": False, "group": False}, [f"{REST}sampler.seed = '${{seed}}'"]),
        ("optuna", {"sampler": {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": "${first}"}},
         {}, [f"{REST}sampler.n_startup_trials = '${{first}}'"]),
        ("optuna", {"sampler": {"_target_": "optuna.samplers.NSGAIISampler", "population_size": 8, "seed": None}},
         {"population_size": 8}, []),
        ("optuna", {"max_failure_rate": 0.2, "n_jobs": 2, "storage": None, "mine": {"deep": 3}},
         {}, [f"{REST}max_failure_rate = 0.2, mine.deep = 3"]),
        ("optuna", {"custom_search_space": "mine.add"},
         {}, ["custom_search_space: 'mine.add' may add parameters there, and is not read"]),
        ("ax", {"ax_config": {"early_stop": {"minimize": True}, "experiment": {"parameter_constraints": ["x <= y"]}}},
         {}, [f"{REST}ax_config.early_stop.minimize = True, "
              "ax_config.experiment.parameter_constraints = ['x <= y']"]),
        ("nevergrad", {"optim": {"budget": 3, "noisy": True, "num_workers": 2}}, {}, [f"{REST}optim.noisy = True"]),
        ("basic", {"max_batch_size": 3, "mine": 1}, {}, [f"{REST}mine = 1"]),
    ],
)  # fmt: skip
def test_every_setting_of_a_sweeper_is_read_or_named(
    tmp_path: Path, name: str, section: dict[str, Any], options: dict[str, Any], notes: list[str]
) -> None:
    search = read(tmp_path, sweeper(name, params={"x": "1,2"}, **section), ".yaml")
    assert search.sampler_options == options
    assert [note for note in search.notes if note.startswith((REST, "custom"))] == notes


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("optuna", {"sampler": {"_target_": "optuna.samplers.TPESampler", "seed": 3}}),
        ("ax", {"ax_config": {"client": {"random_seed": 3}}}),
        ("nevergrad", {"optim": {"seed": 3}}),
    ],
)
def test_the_seed_of_a_sweeper_is_the_studys(tmp_path: Path, name: str, section: dict[str, Any]) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(sweeper(name, params={"lr": "0.1,0.2", "epochs": 2}, **section))
    options = ImportOptions(dataset="mnist", renames={"value": "val_loss"})
    study = import_study(path, options)
    assert study.table["seed"] == 3
    assert "seed = 3 decides the data split and the initial weights here, too" in study.notes
    assert not any(note.startswith(REST) for note in study.notes)


def test_files_that_only_hydra_finds_are_left_out_or_stand_in_a_loop(tmp_path: Path) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(sweeper("basic", params={"lr": "0.1,0.2", "net": "glob(*)", "size": "1,2"}))
    with pytest.raises(RequestError, match=r"net: 'glob\(\*\)': glob selects files, which only Hydra finds; list"):
        import_study(path, ImportOptions(dataset="mnist"))
    study = import_study(path, ImportOptions(dataset="mnist", left_out=("net",)))
    assert (study.kept, study.total) == (1, 2)
    loop = import_loop(path, Path("files_loop.py"), ImportOptions())
    assert "# net: compute it here, as the file does: glob(*)" in loop.loop
    assert (loop.kept, loop.total) == (2, 3)


def test_a_seed_that_no_study_can_have_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "theirs.yaml"
    sampler = {"_target_": "optuna.samplers.TPESampler", "seed": -1}
    path.write_text(sweeper("optuna", params={"lr": "0.1,0.2"}, sampler=sampler))
    study = import_study(path, ImportOptions(dataset="mnist", renames={"value": "val_loss"}))
    assert "seed" not in study.table
    assert "seed = -1 is left out: a study's is from 0 to 4,294,967,295" in study.notes


def test_the_objective_of_ax_has_its_name(tmp_path: Path) -> None:
    config = {"experiment": {"objective_name": "val_loss", "minimize": False}, "max_trials": 3}
    search = read(tmp_path, sweeper("ax", params={"x": "1,2"}, ax_config=config), ".yaml")
    assert (search.metric, search.direction, search.notes) == ("val_loss", "maximize", ())
