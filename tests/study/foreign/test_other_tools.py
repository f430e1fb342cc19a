"""Readers of other tools' files: values and bounds against formulas and the tools' own documents, and bad files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from hpo.errors import ImportRefusedError, RequestError
from hpo.study.foreign.domains import quantized
from hpo.study.foreign.hydra_values import ChoiceSweep, IntervalSweep, RangeSweep, parse_value
from hpo.study.foreign.python_source import UnreadableError, parse_source
from hpo.study.foreign.readers import read_search
from hpo.study.foreign.search import Choices, Computed, Constant, ForeignDomain, ForeignSearch, Range

CORPUS = Path(__file__).parents[2] / "imports"


def read(tmp_path: Path, text: str, suffix: str = ".py") -> ForeignSearch:
    path = tmp_path / f"theirs{suffix}"
    path.write_text(text, encoding="utf-8")
    return read_search(path)


def read_json(tmp_path: Path, document: Any) -> ForeignSearch:
    return read(tmp_path, json.dumps(document), ".json")


def refusal(tmp_path: Path, text: str, suffix: str = ".py") -> str:
    """Return what is said against a file, in one line that begins with the file."""
    with pytest.raises(RequestError) as error:
        read(tmp_path, text, suffix)
    beginning, _, message = str(error.value).partition(": ")
    assert beginning == str(tmp_path / f"theirs{suffix}")
    assert "\n" not in message
    return message


def points(domain: ForeignDomain) -> set[float]:
    match domain:
        case Constant(value):
            return {value}
        case Choices(values):
            return set(values)
        case Range(low, high, step=float() | int() as step):
            return {round(low + step * number, 9) for number in range(round((high - low) / step) + 1)}
        case Range(low, high, integer=True):
            return set(range(int(low), int(high) + 1))
    raise AssertionError(domain)


# Ranges that round.


@pytest.mark.parametrize(
    ("low", "high", "q"),
    [(0, 1, 0.25), (16, 128, 16), (0.1, 0.9, 0.25), (0, 10, 3), (1, 9, 4), (2, 2, 1), (0.3, 0.4, 1)],
)
def test_quantized_ranges_have_the_values_of_the_formula(low: float, high: float, q: float) -> None:
    """NNI documents quniform as clip(round(uniform(low, high) / q) * q, low, high)."""
    random.seed(0)
    drawn = {min(max(round(random.uniform(low, high) / q) * q, low), high) for _ in range(4000)}
    domain, note = quantized(low, high, q)
    assert points(domain) == {round(value, 9) for value in drawn}
    assert note == ""


def test_steps_of_a_logarithmic_scale_are_left_out_and_said() -> None:
    assert quantized(1, 64, 1, log=True) == (Range(1, 64, log=True, integer=True), "")
    domain, note = quantized(0.001, 0.1, 0.001, log=True)
    assert domain == Range(0.001, 0.1, log=True)
    assert note == "its steps of 0.001 on a logarithmic scale have no equivalent and are left out"


# NNI and KerasTuner.


def test_the_upper_bound_of_nnis_randint_is_exclusive(tmp_path: Path) -> None:
    space = {"a": {"_type": "randint", "_value": [1, 4]}, "b": {"_type": "uniform", "_value": [1, 4]}}
    domains = [parameter.domain for parameter in read_json(tmp_path, space).parameters]
    assert domains == [Range(1, 3, integer=True), Range(1.0, 4.0)]


def keras(kind: str, **config: Any) -> dict[str, Any]:
    hyperparameter = {"class_name": kind, "config": {"name": "x", "default": None, "conditions": [], **config}}
    return {"space": [hyperparameter], "values": {}}


@pytest.mark.parametrize(
    ("hyperparameter", "values"),
    [
        (keras("Int", min_value=6, max_value=13, step=3, sampling="linear"), {6, 9, 12}),
        (keras("Int", min_value=2, max_value=32, step=2, sampling="log"), {2, 4, 8, 16, 32}),
        (keras("Float", min_value=0, max_value=1, step=0.2, sampling="linear"), {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}),
        (keras("Float", min_value=0.001, max_value=10, step=10, sampling="log"), {0.001, 0.01, 0.1, 1.0, 10.0}),
        # max + min - min * step ** i
        (keras("Int", min_value=1, max_value=8, step=2, sampling="reverse_log"), {8, 7, 5, 1}),
        (keras("Boolean"), {False, True}),
    ],
)
def test_keras_tuners_steps_are_those_of_its_documentation(
    tmp_path: Path, hyperparameter: dict[str, Any], values: set[float]
) -> None:
    [parameter] = read_json(tmp_path, hyperparameter).parameters
    assert points(parameter.domain) == values


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


def sweeper(name: str, **section: Any) -> str:
    return yaml.safe_dump({"defaults": [{"override hydra/sweeper": name}], "hydra": {"sweeper": section}})


def test_the_end_of_hydras_range_belongs_to_it_in_the_optuna_sweeper_alone(tmp_path: Path) -> None:
    params = {"n": "range(1, 4)"}
    grid = {"_target_": "optuna.samplers.GridSampler"}
    found = [
        read(tmp_path, sweeper(name, params=params, **more), ".yaml").parameters[0].domain
        for name, more in (("basic", {}), ("optuna", {}), ("optuna", {"sampler": grid}), ("ax", {}))
    ]
    assert list(map(points, found)) == [{1, 2, 3}, {1, 2, 3, 4}, {1, 2, 3}, {1, 2, 3}]


# Python.


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of suggest_uniform and its like, which older files have
@pytest.mark.parametrize("name", ["branches", "layers"])
def test_optunas_parameters_are_those_that_optuna_gets(name: str) -> None:
    """Run the objective functions, and compare the parameters of each trial, their domains and their conditions."""
    file = CORPUS / "optuna" / f"{name}.py"
    scope: dict[str, Any] = {"__name__": name}
    exec(compile(file.read_text(encoding="utf-8"), file, "exec"), scope)
    search = read_search(file)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(scope["objective"], n_trials=60)
    unread = {"warmup"}  # its condition is about a range of real numbers, and said to be left out
    for trial in study.trials:
        existing = {
            each.name: each.domain
            for each in search.parameters
            if all(trial.params.get(parent) in values for parent, values in each.when.items())
        }
        assert set(trial.params) - unread == set(existing) - unread
        for parameter in trial.params:
            assert same(existing[parameter], trial.distributions[parameter]), parameter


def same(ours: ForeignDomain, theirs: Any) -> bool:
    match ours:
        case Choices(values):
            return values == theirs.choices
        case Range(low, high, log, step):
            usual = 1 if isinstance(theirs, optuna.distributions.IntDistribution) else None
            return (low, high, log, step or usual) == (theirs.low, theirs.high, theirs.log, theirs.step)
    return False


IMPORT = "from ray import tune\n"
RAY = IMPORT + "import numpy as np\nimport random\nspace = {'x': %s, 'y': tune.choice([1, 2])}\n"


@pytest.mark.parametrize(
    ("expression", "domain"),
    [
        ("tune.sample_from(lambda _: 2 ** np.random.randint(2, 5))", Choices((4, 8, 16))),
        ("tune.sample_from(lambda: random.randint(2, 4))", Range(2, 4, integer=True)),
        ("tune.sample_from(lambda _: 10 ** -np.random.uniform(1, 3))", Range(0.001, 0.1, log=True)),
        ("tune.sample_from(lambda _: 1 - np.random.uniform(0.25, 0.5))", Range(0.5, 0.75)),
        ("tune.sample_from(lambda spec: spec.config.y)", Computed("lambda spec: spec.config.y")),
        ("tune.choice([2 ** k for k in range(3)])", Choices((1, 2, 4))),
        ("tune.choice(list(np.linspace(0.1, 0.3, 3)))", Choices((0.1, 0.2, 0.3))),
        ("open('secret').read()", Computed("open('secret').read()")),
    ],
)
def test_expressions_of_python_are_read_and_not_run(tmp_path: Path, expression: str, domain: ForeignDomain) -> None:
    assert read(tmp_path, RAY % expression).parameters[0].domain == domain


@pytest.mark.parametrize(
    "expression",
    [
        "9 ** 9 ** 9", "'{:>999999999}'.format(1)", "'%999999999d' % 1", "list(range(10 ** 9))", "[0] * 10 ** 9",
        "-" * 50 + "x", "np.arange(0, 1, 1e-300)", "[[i for i in range(999)] for j in range(999)]", "(-8) ** 0.5",
        "__import__('os').getcwd()",
    ],
)  # fmt: skip
def test_expressions_that_are_too_large_or_call_anything_are_not_evaluated(expression: str) -> None:
    source = parse_source(f"import numpy as np\nx = {expression}")
    with pytest.raises(UnreadableError):
        source.evaluate(source.assigned["x"])


# Bad files.


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".py", IMPORT + "space = {'x': tune.uniform(0, 1)", "line 2: is no valid Python: '{' was never closed"),
        (".py", IMPORT + "(" * 5000, "line 2: is no valid Python: too many nested parentheses"),
        (".py", IMPORT, "has no search space of Ray Tune"),
        (".py", RAY % "tune.choice(load())", "x: tune.choice(load()) (line 4) is known only when the file runs"),
        (".py", RAY % "tune.uniform(1)", "x: tune.uniform(1) (line 4): takes lower, upper"),
        (".py", RAY % "tune.loguniform(0, 1)", "x: tune.loguniform(0, 1) (line 4): 0 to 1: a logarithmic scale begins"),
        (".py", RAY % "1" + "z = {'z': tune.uniform(0, 1)}", "has 2 search spaces (lines 4, 5); leave one in the file"),
        (".py", "def f(trial): return trial.suggest_int('n', low(), 3)", "(line 1) is known only when the file runs"),
        (".json", '{"a": {"_type": "mutable_layer", "_value": [1]}}', "a: _type: "),
        (".json", '{"a": {"_type": "randint", "_value": [3, 3]}}', "a: from 3 to below 3: there is no whole number"),
        (".json", '{"space": [{"class_name": "Int"}]}', "space[0] = "),
        (".yaml", sweeper("basic", params={"x": "interval(0, 1)"}), "x: 'interval(0, 1)': the basic sweeper takes no "),
        (".yaml", "apiVersion: kubeflow.org/v1beta1\nkind: Experiment\nspec: {nasConfig: {}}", "spec.nasConfig: "),
        (".yaml", "searchSpaceFile: ../missing.json\n", "missing.json: cannot be read: No such file or directory"),
        (".yaml", "a: 1\n", "is none of the files that can be imported"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_in_a_line(tmp_path: Path, suffix: str, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text, suffix)


def test_all_parameters_that_are_wrong_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ImportRefusedError) as error:
        read_json(tmp_path, {name: {"_type": "randint", "_value": [5, 1]} for name in "ab"})
    assert [line.partition(":")[0] for line in error.value.lines] == ["a", "b"]
    assert str(error.value).endswith("2 parameters cannot be read, each on a line above")


def test_a_database_needs_no_import(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    optuna.create_study(storage=f"sqlite:///{path}")
    with pytest.raises(RequestError, match=f"hpo list --storage sqlite:///{path}"):
        read_search(path)
