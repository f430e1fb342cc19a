"""Training loops that are generated for hostile names and values, for epochs by other names, and for idle pruners."""

from __future__ import annotations

import json
import keyword
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.errors import RequestError
from hpo.space import Space
from hpo.study.foreign.imported import ImportedStudy, ImportOptions
from hpo.study.foreign.loop_file import import_loop
from hpo.study.foreign.search import ForeignSearch, Goal
from hpo.study.foreign.trials import add_trials
from hpo.study.input.study_file import parse_definition
from tests.helpers import run_hpo, train_here
from tests.study.foreign.files import IMPORT, sweeper

NAME = "hostile_loop"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loops")


def import_sweep(folder: Path, parameters: Any, **keys: Any) -> ImportedStudy:
    sweep = {"method": "random", "metric": {"name": "score", "goal": "maximize"}, "parameters": parameters, **keys}
    (folder / "sweep.json").write_text(json.dumps(sweep))
    return import_loop(folder / "sweep.json", Path(f"{NAME}.py"), ImportOptions())


def run_loop(study: ImportedStudy) -> tuple[dict[str, Any], Space]:
    """Run a generated file, and return what it defines, and the space of its study."""
    models, metrics = dict(registry.models._entries), dict(registry.metrics._entries)
    scope: dict[str, Any] = {"__name__": NAME}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(compile(study.loop, f"{NAME}.py", "exec"), scope)
        return scope, parse_definition(tomllib.loads(study.toml("sweep")), NAME, Path())[1].space
    finally:
        scope["entry"] = registry.models.find(NAME)
        registry.models._entries.clear()
        registry.models._entries.update(models)
        registry.metrics._entries.clear()
        registry.metrics._entries.update(metrics)


def configurations(scope: dict[str, Any], space: Space, count: int = 5) -> Iterator[TrialConfig]:
    random = np.random.default_rng(0)
    registry.models._entries[NAME] = scope["entry"]
    try:
        for _ in range(count):
            yield TrialConfig(**space.values(space.draw(random.random(len(space.varied)).tolist())))
    finally:
        del registry.models._entries[NAME]


def written(scope: dict[str, Any], config: TrialConfig) -> dict[str, Any]:
    return scope["as_written"](config) if "as_written" in scope else scope["Parameters"].model_fields


HOSTILE = sorted(
    {
        *("hpo", "trial", "config", "train", "written", "Parameters", "BaseModel", "Any", "PATHS", "MISSING", "json"),
        *("int", "float", "str", "list", "dict", "bool", "type", "object", "getattr", "isinstance", "dataclass"),
        *("model", "model_", "model_config", "model_dump", "model_fields", "copy", "schema", "self", "cls"),
        *(
            "__init__",
            "__class__",
            "__dict__",
            "_private",
            "__",
            "_",
            "1st",
            "10",
            "größe",
            "学习率",
            "é",
            "a b",
            "a\nb",
        ),
        *('quote"', "back\\slash", "a.b", "a-b", "a_b", "{x}", "%s", "#", "'", "\u2028", "effective", "seed_of_init"),
        *("seed", "epochs", "learning_rate", "learning-rate", "batch_size", "optimizer", "loss", "device", "x" * 300),
        *keyword.kwlist,
        *keyword.softkwlist,
    }
)
TEXT = st.characters(exclude_categories=["Cc", "Cs"])  # no text of a document has those
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(),
    st.sampled_from([float("inf"), float("-inf"), float("nan"), 1e-320, "none", "None", "null", "", '"', "\n"]),
    st.text(TEXT, max_size=5),
    st.lists(st.one_of(st.none(), st.integers(-9, 9), st.floats(), st.text(TEXT, max_size=3)), max_size=3),
    st.dictionaries(st.text(TEXT, max_size=3), st.booleans(), max_size=2),
)
NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(TEXT, min_size=1, max_size=6))


def same(one: Any, other: Any) -> bool:
    """Return whether two values are the same, where NaN is NaN and 1 is 1.0."""
    return one == other or json.dumps(one) == json.dumps(other)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.dictionaries(NAMES, st.lists(VALUES, min_size=1, max_size=3), min_size=1, max_size=4))
@example({name: [1, 2] for name in HOSTILE})
@example({name: [name] for name in HOSTILE})
@example({"clip": [float("inf"), 1.0], "nan": [float("nan")], "lists": [[1e400], [1]], "null_only": [None]})
def test_every_generated_file_runs_and_returns_what_was_written(folder: Path, searched: dict[str, list[Any]]) -> None:
    domains = {name: {"values": values} if values[1:] else {"value": values[0]} for name, values in searched.items()}
    study = import_sweep(folder, domains)
    scope, space = run_loop(study)
    for config in configurations(scope, space):
        if "as_written" not in scope:  # all have their own names
            assert all(any(same(getattr(config, name), each) for each in values) for name, values in searched.items())
            continue
        values = scope["as_written"](config)
        assert values.keys() == searched.keys()
        assert all(any(same(values[name], each) for each in searched[name]) for name in searched)
        parameters = scope["as_parameters"](values)
        assert parameters.keys() == scope["PATHS"].keys()
        assert all(same(getattr(config, name), value) for name, value in parameters.items())


def test_null_is_a_value_and_not_a_gap(folder: Path) -> None:
    scope, _ = run_loop(import_sweep(folder, {"env-id": {"values": ["a", "b"]}, "target-kl": {"values": [None, 0.1]}}))
    assert scope["as_parameters"]({"env-id": "a", "target-kl": None}) == {"env_id": "a", "target_kl": None}
    assert scope["as_parameters"]({"env-id": "a"}) == {"env_id": "a"}


def test_a_parameter_may_exist_where_another_is_null(tmp_path: Path) -> None:
    (tmp_path / "search.py").write_text(
        "import optuna\n"
        "def objective(trial):\n"
        "    kind = trial.suggest_categorical('kind', [None, 'soft'])\n"
        "    if kind is None:\n"
        "        trial.suggest_float('odd-rate', 0.5, 1)\n"
        "    else:\n"
        "        trial.suggest_float('tau', 0, 0.4)\n"
        "optuna.create_study().optimize(objective, n_trials=3)\n"
    )
    scope, space = run_loop(import_loop(tmp_path / "search.py", Path(f"{NAME}.py"), ImportOptions()))
    found = [scope["as_written"](config) for config in configurations(scope, space, 20)]
    assert {tuple(each) for each in found} == {("kind", "odd-rate"), ("kind", "tau")}
    assert all(("odd-rate" in each) == (each["kind"] is None) for each in found)


# Epochs.


@pytest.mark.parametrize(
    ("parameters", "epochs"),
    [
        ({"max_epochs": {"value": 500}}, 500),
        ({"num_train_epochs": {"values": [2, 3, 4]}}, None),
        ({"trainer": {"parameters": {"max_epochs": {"value": 3}}}}, 3),
        ({"num-epochs": {"min": 9, "max": 9}}, None),
        ({"max-epochs": {"value": 9}, "epochs": {"value": 7}}, 7),  # ours by its very name
    ],
)
def test_a_loop_counts_the_epochs_of_its_file(parameters: dict[str, Any], epochs: int | None, folder: Path) -> None:
    study = import_sweep(folder, {"lr": {"min": 0.1, "max": 0.2}, **parameters})
    assert not any("trial.epochs() counts" in note for note in study.notes)
    scope, space = run_loop(study)
    assert study.table["parameters"].get("epochs") == epochs
    for config in configurations(scope, space):
        name = list(parameters)[-1]
        theirs = scope["as_written"](config)
        assert config.epochs == (theirs["trainer"]["max_epochs"] if name == "trainer" else theirs[name])


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"max_epochs": {"value": 5}, "n_epochs": {"value": 9}}, "max_epochs, n_epochs"),
        ({"max_epochs": {"value": 0}}, "max_epochs"),  # which ours cannot be
        ({"max_epochs": {"values": [5, "many"]}}, "max_epochs"),
        (
            {"env_id": {"value": "a"}, "epochs": {"value": 9}, "total_timesteps": {"value": 9}},
            "epochs, total_timesteps",
        ),
        ({"pretraining": {"parameters": {"epochs": {"value": 9}}}}, "pretraining.epochs"),
    ],
)
def test_a_loop_names_what_its_epochs_may_be(parameters: dict[str, Any], named: str, folder: Path) -> None:
    study = import_sweep(folder, {"lr": {"min": 0.1, "max": 0.2}, **parameters})
    [note] = [note for note in study.notes if "trial.epochs() counts" in note]
    assert note.startswith(f"trial.epochs() counts the 5 of the study file, not {named}; where")
    run_loop(study)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({}, "it begins at epoch 30, and a trial has 5 epochs; set more epochs, or a lower min_resource"),
        ({"max_epochs": {"values": [10, 20]}}, "it begins at epoch 30, and a trial has 20 epochs"),
        ({"max_epochs": {"values": [10, 40]}}, None),
    ],
)
def test_a_loop_says_that_its_pruner_never_prunes(parameters: dict[str, Any], says: str | None, folder: Path) -> None:
    early = {"type": "hyperband", "min_iter": 30}
    study = import_sweep(folder, {"lr": {"min": 0.1, "max": 0.2}, **parameters}, early_terminate=early)
    notes = [note for note in study.notes if "the pruner never prunes" in note]
    assert (says is None and not notes) or (says is not None and says in notes[0])


# What no study could run.


def test_a_parameter_that_can_never_exist_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "search.py").write_text(
        "import optuna\n"
        "def objective(trial):\n"
        "    kind = trial.suggest_categorical('kind', ['a', 'b'])\n"
        "    if kind not in ('a', 'b'):\n"
        "        trial.suggest_float('rho', 0.5, 1)\n"
        "    return trial.suggest_float('tau', 0, 0.4)\n"
        "optuna.create_study().optimize(objective, n_trials=3)\n"
    )
    study = import_loop(tmp_path / "search.py", Path(f"{NAME}.py"), ImportOptions())
    assert "rho (line 5) is left out: the conditions around it never hold" in study.notes
    assert set(run_loop(study)[1].domains) == {"model", "epochs", "kind", "tau"}


def test_a_grid_over_a_range_is_refused(tmp_path: Path) -> None:
    (tmp_path / "search.py").write_text(
        "import optuna\n"
        "def objective(trial):\n"
        "    return trial.suggest_float('lr', 0.01, 0.1)\n"
        "study = optuna.create_study(sampler=optuna.samplers.BruteForceSampler())\n"
        "study.optimize(lambda trial: objective(trial))\n"
    )
    with pytest.raises(RequestError, match=r"lr: the search is a grid, but 0.01 to 0.1 has no steps"):
        import_loop(tmp_path / "search.py", Path(f"{NAME}.py"), ImportOptions())


def test_a_sampler_and_a_target_of_one_objective_are_left_out_of_a_study_of_several(tmp_path: Path) -> None:
    sweep = {"direction": ["minimize", "maximize"], "sampler": "cmaes", "params": {"lr": "interval(0.1, 1)"}}
    (tmp_path / "search.yaml").write_text(sweeper("optuna", **sweep))
    study = import_loop(tmp_path / "search.yaml", Path(f"{NAME}.py"), ImportOptions())
    assert "its sampler cmaes takes one objective; the study's is the default, tpe" in study.notes
    run_loop(study)
    assert "sampler" not in study.table


def test_a_target_is_left_out_of_a_study_of_several_objectives() -> None:
    study = ImportedStudy("some tool", {"target": 0.9})
    goals = {"metric": "a", "direction": "maximize", "target": 0.9, "also": (Goal("b", "minimize"),)}
    add_trials(study, ForeignSearch("some tool", (), **goals))
    assert "target" not in study.table
    assert "its target is left out: a study of several objectives has none" in study.notes


def test_an_option_that_a_sampler_cannot_have_is_refused_when_a_loop_is_written(tmp_path: Path) -> None:
    sampler = {"_target_": "optuna.samplers.TPESampler", "n_ei_candidates": 0}
    (tmp_path / "search.yaml").write_text(sweeper("optuna", sampler=sampler, params={"lr": "interval(0.1, 1)"}))
    with pytest.raises(RequestError, match=r"search\.yaml: sampler 'tpe'.*n_ei_candidates = 0"):
        import_loop(tmp_path / "search.yaml", Path(f"{NAME}.py"), ImportOptions())


def test_what_the_file_computes_is_no_parameter_that_is_kept(tmp_path: Path) -> None:
    (tmp_path / "search.py").write_text(
        f"{IMPORT}import numpy as np\n"
        "tune.run(train, config={'lr': tune.uniform(0.1, 1), 'size': tune.sample_from(lambda _: 2 ** draw()), 'units': "
        "tune.sample_from(lambda _: 2 ** np.random.randint(2, 5)), 'twice': tune.sample_from(lambda s: 2 * s.lr)})\n"
    )
    study = import_loop(tmp_path / "search.py", Path(f"{NAME}.py"), ImportOptions())
    share = "2 of 4 parameters are kept; 2 stand in the loop as expressions, to be computed there"
    assert study.describe_share() == share
    assert "# size: compute it here, as the file does: lambda _: 2 ** draw()" in study.loop
    assert run_loop(study)[1].domains["units"][0].points() == (4, 8, 16)


@pytest.mark.parametrize("name", ["hpo.py", "pydantic.py"])
def test_a_loop_is_not_called_as_what_it_imports(name: str, folder: Path) -> None:
    import_sweep(folder, {"a": {"values": [1, 2]}})
    with pytest.raises(RequestError, match="must be the path of a Python file whose name can be imported"):
        import_loop(folder / "sweep.json", Path(name), ImportOptions())


@pytest.mark.integration
def test_a_loop_over_seeds_is_launched_and_reproduced(tmp_path: Path) -> None:
    import_sweep(tmp_path, {"lr": {"min": 0.1, "max": 0.2}, "seed": {"values": [1, 2, 3]}}, run_cap=3)
    done = run_hpo("import", "sweep.json", "--loop", f"{NAME}.py", "-o", f"{NAME}.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before, _, _ = (tmp_path / f"{NAME}.py").read_text().partition("    # Build what is trained here")
    body = "    for _ in trial.epochs():\n        trial.report(score=config.lr + config.seed)\n"
    (tmp_path / f"{NAME}.py").write_text(before + body)
    train_here(f"./{NAME}.toml", "--import", NAME, cwd=tmp_path)
    trials = json.loads(run_hpo("trials", NAME, "--import", NAME, "--format", "json", cwd=tmp_path).stdout)
    assert [each["score"] - each["lr"] for each in trials] == pytest.approx([each["seed"] for each in trials])
    done = run_hpo("reproduce", NAME, "1", "--import", NAME, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
