"""Objective functions of Optuna: what a file does with what is suggested, and which functions a study runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.errors import RequestError
from hpo.study.foreign.import_study import import_study
from hpo.study.foreign.imported import ImportOptions
from hpo.study.foreign.loop_file import import_loop
from hpo.study.foreign.readers import read_search
from hpo.study.foreign.search import Choices, Constant, ForeignSearch, Range

OBJECTIVE = """import math
import numpy as np
def objective(trial):
    {}
    return train(d)
study.optimize(objective, n_trials=3)
"""


def read(folder: Path, text: str) -> ForeignSearch:
    path = folder / "search.py"
    path.write_text(text, encoding="utf-8")
    return read_search(path)


@pytest.mark.parametrize(
    ("lines", "expression"),
    [
        ("d = 2 ** trial.suggest_int('width', 4, 8)", "2 ** …"),
        ("d = 1 - trial.suggest_float('width', 0.1, 0.3)", "1 - …"),
        ("d = -trial.suggest_int('width', 4, 8)", "-…"),
        ("d = int(10 ** trial.suggest_float('width', 1, 2))", "int(10 ** …)"),
        ("d = [2 ** trial.suggest_int('width', 4, 6) for _ in range(2)]", "2 ** …"),
        ("d = build(lr=math.exp(trial.suggest_float('width', 1, 2)))", "math.exp(…)"),
        ("d = round(np.log(trial.suggest_int('width', 4, 8)), 3)", "round(np.log(…), 3)"),
        ("d = [16, 32, 64][trial.suggest_int('width', 0, 2)]", "[16, 32, 64][…]"),
        ("d = f'resnet{trial.suggest_int(\"width\", 4, 8)}'", "f'resnet{…}'"),
        ("k = trial.suggest_int('width', 4, 8); d = load(batch_size=2**k)", "2 ** k"),
        ("k = int(trial.suggest_float('width', 4, 8)); print(f'{k}', k); d = k * 32", "k * 32"),
        ("k = trial.suggest_int('width', 4, 8); k = 2 ** k; d = load(k)", "2 ** k"),
        ("k = trial.suggest_int('width', 4, 8); k *= 32; d = load(k)", "k *= 32"),
        ("p = {'k': trial.suggest_int('width', 4, 8)}; d = 2 ** p['k']", "2 ** p['k']"),
        ("p = dict(k=trial.suggest_int('width', 4, 8)); d = 2 ** p['k']", "2 ** p['k']"),
        ("k, m = trial.suggest_int('width', 4, 8), 2; d = 2 ** k", "2 ** k"),
        ("d = 2 ** (k := trial.suggest_int('width', 4, 8))", "2 ** (k := …)"),
        # As it is.
        ("d = int(trial.suggest_float('width', 4, 8))", ""),
        ("d = build(trial.suggest_int('width', 4, 8)) * 2", ""),
        ("d = OPTIMIZERS[trial.suggest_categorical('width', ['a', 'b'])]", ""),
        ("k = trial.suggest_int('width', 4, 8); d = build(k) if k > 4 else None", ""),
        ("k = trial.suggest_int('width', 4, 8); d = build(k); trial.report(2 * k, 0)", ""),
        ("p = {'k': trial.suggest_int('width', 4, 8)}; n = 2 * p['k']; d = build(**p)", ""),
        ("k = trial.suggest_int('width', 4, 8); d = build(k, 2 * k)", ""),
    ],
)  # fmt: skip
def test_what_a_file_computes_of_a_value_is_no_parameter_of_ours(tmp_path: Path, lines: str, expression: str) -> None:
    [parameter] = read(tmp_path, OBJECTIVE.format(lines)).parameters
    assert parameter.expression == expression
    assert parameter.note == (f"the file computes with it: {expression}" if expression else parameter.note)


def test_a_value_that_is_used_both_ways_has_a_note(tmp_path: Path) -> None:
    lines = "k = trial.suggest_int('width', 4, 8); d = build(k, 2 * k)"
    [parameter] = read(tmp_path, OBJECTIVE.format(lines)).parameters
    assert parameter.note == "the file uses it as it is, and computes with it too: 2 * k"


def test_a_computed_parameter_is_left_out_and_stays_in_a_loop(tmp_path: Path) -> None:
    lines = "d = 2 ** trial.suggest_int('batch_size', 4, 8), trial.suggest_float('lr', 0.1, 0.2)"
    read(tmp_path, OBJECTIVE.format(lines))
    path = tmp_path / "search.py"
    study = import_study(path, ImportOptions(dataset="mnist"))
    assert list(study.table["parameters"]) == ["learning_rate"]
    assert any("batch_size: left out: the file computes with it: 2 ** …" in note for note in study.notes)
    loop = import_loop(path, tmp_path / "filled_loop.py", ImportOptions()).loop
    assert "# batch_size: the file computes with it: 2 ** …" in loop
    assert "batch_size_: int = hpo.Int(4, 8)" in loop


FUNCTIONS = """
def f(trial):
    return trial.suggest_float("lr", 0.1, 0.2)


def g(trial):
    return h(trial)


def h(trial):
    return trial.suggest_int("width", 4, 8)


class Objective:
    def __call__(self, trial):
        return self.sample(trial)

    def sample(self, trial):
        return trial.suggest_int("depth", 1, 3)


def main():
    def objective(trial):
        return trial.suggest_int("epochs", 1, 3)

    return objective

"""


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("study.optimize(f)", ["lr"]),
        ("study.optimize(g, n_trials=2)", ["width"]),
        ("study.optimize(func=g)", ["width"]),
        ("study.optimize(lambda trial: g(trial))", ["width"]),
        ("run = partial(g, data=3)\nstudy.optimize(run)", ["width"]),
        ("study.optimize(Objective())", ["depth"]),
        ("run = Objective()\nstudy.optimize(run)", ["depth"]),
        ("study.optimize(objective)", ["epochs"]),
        ("study.optimize(lambda trial: trial.suggest_int('batch_size', 4, 8))", ["batch_size"]),
        ("study.optimize(f)\nstudy.optimize(f)", ["lr"]),
    ],
)
def test_the_function_that_optimize_runs_is_read(tmp_path: Path, line: str, names: list[str]) -> None:
    search = read(tmp_path, FUNCTIONS + line)
    assert [each.name for each in search.parameters] == names
    assert ("f (line 2) suggests parameters too" in "\n".join(search.notes)) == (names != ["lr"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("study.optimize(f)\nstudy.optimize(g)", "has 2 objective functions: f (line 2), g (line 6); leave one in the"),
        (
            "TABLE = {'f': f, 'g': g}",
            "has 4 objective functions: f (line 2), g (line 6), Objective (line 15), main (line 22)",
        ),
    ],
)
def test_one_of_several_functions_is_not_chosen_in_silence(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(RequestError) as error:
        read(tmp_path, FUNCTIONS + line)
    assert message in str(error.value)


def test_parameters_whose_conditions_never_hold_are_left_out(tmp_path: Path) -> None:
    lines = "o = trial.suggest_categorical('o', ['a', 'b'])\n    "
    search = read(tmp_path, OBJECTIVE.format(f"{lines}if o == 'c': d = trial.suggest_int('width', 4, 8)"))
    assert [each.name for each in search.parameters] == ["o"]
    assert "width (line 5) is left out: the conditions around it never hold" in search.notes


CHOICE = "o = trial.suggest_categorical('o', ['a', 'b', 'c'])\n    "
WIDTH = "trial.suggest_int('width', 4, 8)"


@pytest.mark.parametrize(
    ("lines", "values"),
    [
        (f"match o:\n        case 'a': d = {WIDTH}\n        case _: pass", ("a",)),
        (f"match o:\n        case 'a': pass\n        case 'b' | 'c': d = {WIDTH}", ("b", "c")),
        (f"match o:\n        case 'a': pass\n        case other: d = {WIDTH}", ("b", "c")),
        (f"if o == 'a':\n        return 0\n    d = {WIDTH}", ("b", "c")),
    ],
)
def test_a_branch_by_match_or_by_an_early_return_is_a_condition(
    tmp_path: Path, lines: str, values: tuple[str, ...]
) -> None:
    search = read(tmp_path, OBJECTIVE.format(CHOICE + lines))
    assert [dict(each.when) for each in search.parameters] == [{}, {"o": values}]


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        (f"match o:\n        case ['a', *_]: d = {WIDTH}", "condition of width, `if o == ['a', *_]` in line 6"),
        (f"match o:\n        case 'a' if X: d = {WIDTH}", "condition of width, `if o == 'a' and X` in line 6"),
        (f"d = {WIDTH} if X else 3", "condition of width, `if X` in line 5"),
        (f"while X: d = {WIDTH}", "loop around width, `while X` in line 5"),
        (f"for i in X: d = {WIDTH}", "loop around width, `for i in X` in line 5"),
    ],
)
def test_a_condition_that_is_not_read_is_said(tmp_path: Path, lines: str, note: str) -> None:
    assert f"the {note}, is not read" in read(tmp_path, OBJECTIVE.format(CHOICE + lines)).notes


@pytest.mark.parametrize(
    ("lines", "each"),
    [
        ("d = [trial.suggest_int(f'units_{i}', 4, 8) for i in range(len(X))]", "i of range(len(X))"),
        ("for i in layers: d = trial.suggest_int(f'units_{i}', 4, 8)", "i of layers"),
        ("i = len(X); d = trial.suggest_int(f'units_{len(X)}', 4, 8)", "name f'units_{len(X)}'"),
    ],
)
def test_a_suggestion_for_each_of_unknown_layers_is_said_to_stand_for_all(
    tmp_path: Path, lines: str, each: str
) -> None:
    search = read(tmp_path, OBJECTIVE.replace("{}", lines))
    [parameter] = search.parameters
    assert parameter.name == "units__"
    assert parameter.note == (
        f"the file suggests one for each {each} (line 4), and this one stands for all of them, "
        "which can no longer differ"
    )
    assert not any("is not read" in note for note in search.notes)


STUDY = """import optuna
from optuna.samplers import GridSampler
def objective(trial):
    return trial.suggest_float("lr", 1e-3, 1e-1) * trial.suggest_int("width", 16, 64)
study = optuna.create_study({})
study.optimize(objective, n_trials=3{})
"""


@pytest.mark.parametrize(
    ("sampler", "method", "options", "seed"),
    [
        ("TPESampler(seed=3, n_startup_trials=20)", "tpe", {"n_startup_trials": 20}, 3),
        ("TPESampler(multivariate=True)", "tpe", {"multivariate": True}, None),
        ("TPESampler(multivariate=False)", "tpe", {"multivariate": False, "group": False}, None),
        ("RandomSampler(42)", "random", {}, 42),
        ("BruteForceSampler(7)", "grid", {}, 7),
        ("GPSampler(seed=1, n_startup_trials=4)", "gp", {"n_startup_trials": 4}, 1),
        ("CmaEsSampler({'lr': 0.1}, 0.2)", "cmaes", {"sigma0": 0.2}, None),
        ("NSGAIISampler(population_size=10, seed=None)", "nsga2", {"population_size": 10}, None),
        ("QMCSampler(seed=1)", "qmc", {}, 1),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of sigma0
def test_options_of_a_sampler_are_those_of_ours(
    tmp_path: Path, sampler: str, method: str, options: dict[str, object], seed: int | None
) -> None:
    search = read(tmp_path, STUDY.format(f"sampler=optuna.samplers.{sampler}", ""))
    assert (search.method, search.sampler_options, search.seed) == (method, options, seed)
    renames = {"value": "val_loss"}
    table = import_study(tmp_path / "search.py", ImportOptions(dataset="mnist", renames=renames, sets=GRIDDED)).table
    assert table["sampler"] == ({"name": method, **options} if options else method)
    assert table.get("seed") == seed


GRIDDED = {"learning_rate": [0.1, 0.01]}


@pytest.mark.parametrize(
    ("pruner", "expected"),
    [
        ("MedianPruner(5, 10)", {"name": "median", "n_startup_trials": 5, "n_warmup_steps": 10}),
        ("PercentilePruner(25.0, 3)", {"name": "percentile", "percentile": 25.0, "n_startup_trials": 3}),
        ("HyperbandPruner(1, max_resource='auto')", {"name": "hyperband", "min_resource": 1}),
    ],
)
def test_options_of_a_pruner_may_have_no_names(tmp_path: Path, pruner: str, expected: object) -> None:
    assert read(tmp_path, STUDY.format(f"pruner=optuna.pruners.{pruner}", "")).pruner == expected


@pytest.mark.parametrize(
    ("study", "more", "note"),
    [
        ("sampler=optuna.samplers.TPESampler(gamma=f, weights=g)", "", "sampler TPESampler: gamma, weights have no eq"),
        ("sampler=optuna.samplers.CmaEsSampler(x0=start)", "", "sampler CmaEsSampler: x0 has no equivalent"),
        ("pruner=optuna.pruners.HyperbandPruner(colour=1)", "", "pruner HyperbandPruner: colour has no equivalent"),
        ("sampler=A() if X else B()", "", "sampler = A() if X else B() (line 5) is known only when the file runs"),
        ("pruner=A() if X else B()", "", "pruner = A() if X else B() (line 5) is known only when the file runs"),
        ("pruner=PRUNERS[args.pruner]", "", "pruner = PRUNERS[args.pruner] (line 5) is known only when the file runs"),
        ("**options", "", "**options of create_study (line 5) is known only when the file runs"),
        (
            "directions=['minimize', 'maximize']",
            "",
            "what its function returns has no names there, and is called value_1 and value_2 here",
        ),
        ("", ")\nstudy.optimize(objective, n_trials=2", "n_trials = 3 (line 6) and 2 (line 7): here 5 trials in all"),
        ("", ", timeout=9)\nstudy.optimize(objective, 2, 1.5", "timeout = 9 (line 6) and 1.5 (line 7): here 10.5 sec"),
        ("", ")\nstudy.optimize(objective, n_trials=N", "n_trials = 3 (line 6) and N (line 7): the sum is known only"),
        (
            "",
            ")\nwhile X:\n    study.optimize(f",
            "study.optimize(f) (line 8) stands in the loop of line 7: its trials",
        ),
        ("", ")\nstudy.optimize(objective", "n_trials = 3 (line 6), and 1 of 2 calls of optimize without it: there is"),
        ("", ", n_jobs=4", "n_jobs = 4: hpo launch --workers"),
        ("", ", callbacks=[stop]", "callbacks = [stop] have no equivalent"),
        (")\nstudy.enqueue_trial({'lr': 0.1}", "", "study.enqueue_trial({'lr': 0.1}) (line 6) is left out; warm_start"),
    ],
)
def test_settings_of_a_study_that_have_no_place_are_said(tmp_path: Path, study: str, more: str, note: str) -> None:
    assert any(each.startswith(note) for each in read(tmp_path, STUDY.format(study, more)).notes)


@pytest.mark.parametrize(
    ("more", "trials", "timeout"),
    [
        (")\nstudy.optimize(objective, n_trials=2", 5, None),
        (", timeout=9)\nstudy.optimize(objective, 2, 1.5", 5, 10.5),
        (", timeout=9)\nstudy.optimize(objective, timeout=3", None, 12),
        (")\nstudy.optimize(objective, n_trials=N", None, None),
    ],
)
def test_limits_of_several_runs_are_added(tmp_path: Path, more: str, trials: int | None, timeout: float | None) -> None:
    search = read(tmp_path, STUDY.format("", more))
    assert (search.trials, search.timeout) == (trials, timeout)


def test_tables_that_a_call_unpacks_are_its_arguments(tmp_path: Path) -> None:
    tables = "ENDS = dict(low=1e-3, high=0.1)\nLOG = {**ENDS, 'log': True}\nMADE = {'direction': 'maximize'}\n"
    text = STUDY.format("**MADE", "").replace('"lr", 1e-3, 1e-1', '"lr", **LOG')
    search = read(tmp_path, tables + text)
    assert search.parameters[0].domain == Range(0.001, 0.1, log=True)
    assert search.direction == "maximize"


@pytest.mark.parametrize("change", ["ENDS['low'] = x", "ENDS = {**ENDS, 'log': True}", "ENDS.update(low=2)"])
def test_a_table_that_changes_is_not_unpacked(tmp_path: Path, change: str) -> None:
    text = STUDY.format("", "").replace('"lr", 1e-3, 1e-1', '"lr", **ENDS')
    with pytest.raises(RequestError, match=r"\*\*ENDS\) .* is known only when the file runs"):
        read(tmp_path, f"ENDS = dict(low=1e-3, high=0.1)\n{change}\n{text}")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("trial.suggest_int('width', 32, 256, 32)", "too many positional arguments; it takes name, low, high, step=…"),
        ("trial.suggest_float('width', 0.1, 0.2, base=2)", "got an unexpected keyword argument 'base'; it takes name"),
    ],
)
def test_a_call_that_optuna_refuses_is_said(tmp_path: Path, call: str, message: str) -> None:
    notes = "\n".join(read(tmp_path, OBJECTIVE.format(f"d = {call}")).notes)
    assert f"Optuna itself refuses {call} (line 4): {message}" in notes
    assert "hpo launch" not in notes


# Helper functions, and epochs.

HELPER = """
def suggest(trial, prefix, low=1):
    return {"wd": trial.suggest_float(prefix + "wd", 0, 0.1), "n": trial.suggest_int(f"{prefix}n", low, 8)}
def objective(trial):
    %s
study.optimize(objective, n_trials=3)
"""


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ("return suggest(trial, 'a_'), suggest(trial, prefix='b_')", ["a_wd", "a_n", "b_wd", "b_n"]),
        ("return suggest(trial, 'a_'), suggest(trial, 'a_', 1)", ["a_wd", "a_n"]),
        ("return suggest(trial, A), suggest(trial, 'b_')", ["prefix + 'wd'", "_n"]),
        ("return suggest(trial, *given), suggest(trial, 'b_')", ["prefix + 'wd'", "_n"]),
    ],
)
def test_a_helper_suggests_for_each_text_that_it_is_called_with(tmp_path: Path, lines: str, names: list[str]) -> None:
    search = read(tmp_path, HELPER % lines)
    assert [each.name for each in search.parameters] == names
    stands = [each for each in search.parameters if "can no longer differ" in each.note]
    assert len(stands) == (2 if "_n" in names else 0)


REPORTED = "for epoch in {}:\n        trial.report({}, epoch)\n    d = trial.suggest_int('width', 4, 8)"


@pytest.mark.parametrize(
    ("lines", "epochs", "note"),
    [
        (REPORTED.format("range(3000)", "x"), 3000, "epochs = 3000, from range(3000) in line 4"),
        ("N = 30\n    " + REPORTED.format("range(1, N + 1)", "x"), 30, "epochs = 30, from range(1, N + 1) in line 5"),
        (f"d = Trainer(max_epochs=25).fit(epochs=25, n={WIDTH})", 25, "epochs = 25, from epochs=25 in line 4"),
        ("for e in range(9):\n        for b in range(99): step()\n        if e: trial.report(1, e)\n    d = " + WIDTH,
         9, "epochs = 9, from range(9) in line 4"),
        (f"d = fit(epochs=25, n={WIDTH}); fit(epochs=5)", None, "it has several numbers of epochs, of which none is "
         "taken: 25, from epochs=25 in line 4; 5, from epochs=5 in line 4"),
        (f"d = fit(epochs=args.epochs, n={WIDTH})", None, ""),
        (REPORTED.format("range(args.epochs)", "x"), None, ""),
        (REPORTED.format("range(5)", "x").replace("epoch", "fold"), None, ""),
        (f"for e in range(9): step()\n    d = {WIDTH}", None, ""),
        (f"d = fit(epochs=25, n={WIDTH}, m=trial.suggest_int('num_epochs', 1, 9))", None, ""),
    ],
)  # fmt: skip
def test_epochs_are_the_times_that_a_function_reports_or_an_argument(
    tmp_path: Path, lines: str, epochs: int | None, note: str
) -> None:
    search = read(tmp_path, OBJECTIVE.replace("{}", lines))
    found = [each.domain for each in search.parameters if each.name == "epochs"]
    assert found == ([] if epochs is None else [Constant(epochs)])
    assert [each for each in search.notes if "epochs" in each] == ([note] if note else [])


@pytest.mark.parametrize("given", ["sampler=GridSampler({'lr': [0.1, 0.01]})", "sampler=GridSampler(search_space=G)"])
def test_the_values_of_a_grid_are_choices(tmp_path: Path, given: str) -> None:
    search = read(tmp_path, "G = {'lr': [0.1, 0.01]}\n" + STUDY.format(given, ""))
    assert search.method == "grid"
    assert search.parameters[0].domain == Choices((0.1, 0.01))


# Files of Python.


@pytest.mark.parametrize("cookie", ["latin-1", "cp1252", "utf-8"])
def test_a_python_file_is_read_in_the_encoding_that_it_names(tmp_path: Path, cookie: str) -> None:
    path = tmp_path / "search.py"
    text = f"# -*- coding: {cookie} -*-\ndef f(trial):\n    return trial.suggest_float('größe', 0.1, 0.2)\n"
    path.write_bytes(text.encode(cookie))
    assert [each.name for each in read_search(path).parameters] == ["größe"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"import optuna\ndef objective(trial:\n  pass\n", "line 2: is no valid Python: "),
        (b"print 'hello'\n", "line 1: is no valid Python: "),
        (b"import os\n", "is none of the files that can be imported"),
        ("# größe\n".encode("latin-1"), "is no text in UTF-8 (byte 4); save it as UTF-8"),
        (b"# coding: nonsense\n", "is none of the files that can be imported"),
        (b"# coding: hex\n", "cannot be read as hex; save it as UTF-8"),
    ],
)
def test_a_python_file_that_cannot_be_parsed_is_refused_with_its_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "search.py"
    path.write_bytes(content)
    with pytest.raises(RequestError) as error:
        read_search(path)
    assert str(error.value).startswith(f"{path}: {message}")
