"""Readers of other tools' files: values and bounds against formulas and the tools' own documents, and bad files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from hpo.errors import ImportRefusedError, RequestError
from hpo.study.foreign.domains import clipped, multiples, normal, rounded
from hpo.study.foreign.import_study import import_study
from hpo.study.foreign.imported import ImportOptions
from hpo.study.foreign.loop_file import import_loop
from hpo.study.foreign.python_source import UnreadableError, parse_source
from hpo.study.foreign.readers import read_search
from hpo.study.foreign.search import Choices, Computed, Constant, ForeignDomain, Range
from tests.study.foreign.files import IMPORT, points, read, read_json, refusal, sweeper

CORPUS = Path(__file__).parents[2] / "imports"


# Ranges that round.


@pytest.mark.parametrize(
    ("low", "high", "q"),
    [
        (0, 1, 0.25),
        (16, 128, 16),
        (0.1, 0.9, 0.25),
        (0, 10, 3),
        (1, 9, 4),
        (2, 2, 1),
        (0.3, 0.4, 1),
        (0.05, 0.5, 0.1),
        (16, 80, 32),
    ],
)
def test_clipped_ranges_have_the_values_of_the_formula(low: float, high: float, q: float) -> None:
    """NNI documents quniform as clip(round(uniform(low, high) / q) * q, low, high)."""
    random.seed(0)
    drawn = {min(max(round(random.uniform(low, high) / q) * q, low), high) for _ in range(4000)}
    domain, note = clipped(low, high, q)
    assert points(domain) == {round(value, 9) for value in drawn}
    assert note == ""


@pytest.mark.parametrize(
    ("low", "high", "q", "note"),
    [
        (16, 256, 32, ""),  # only x = 16 is rounded to 0
        (15.9999999, 256, 32, ""),
        (5, 52, 10, ""),
        (0.05, 0.15, 0.1, ""),
        (100, 500, 64, "it is round(x / 64) * 64 there, which reaches 512, above 500"),
        (0.04, 0.28, 0.1, "it is round(x / 0.1) * 0.1 there, which reaches 0, below 0.04 and 0.3, above 0.28"),
        (0.5, 0.5, 1, "it is round(x / 1) * 1 there, which reaches 0, below 0.5"),
    ],
)
def test_a_rounded_range_leaves_its_ends_only_where_draws_do(low: float, high: float, q: float, note: str) -> None:
    random.seed(0)
    drawn = {round(round(random.uniform(low, high) / q) * q, 9) for _ in range(4000)}
    domain, said = rounded(low, high, q)
    assert points(domain) == drawn
    assert said == note


def test_rounding_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(RequestError, match=r"rounding to multiples of 1e\+308 reaches beyond all numbers"):
        rounded(1e308, 1.7e308, 1e308)


@pytest.mark.parametrize("kind", ["int_uniform", "q_uniform"])
def test_whole_numbers_too_far_apart_for_a_float_are_refused(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text(f"method: random\nparameters: {{width: {{distribution: {kind}, min: -1.0e308, max: 1.0e308}}}}")
    with pytest.raises(RequestError, match=r"width: .* too wide to draw from"):
        import_loop(file, tmp_path / "loop.py", ImportOptions())
    with pytest.raises(ImportRefusedError) as error:
        import_study(file, ImportOptions(dataset="mnist"))
    assert any("too wide to draw from" in line for line in (*error.value.lines, str(error.value)))


def test_zero_which_a_logarithmic_scale_lacks_is_said() -> None:
    domain, note = rounded(0.2, 20, 1, log=True)
    assert domain == Range(1, 20, log=True, integer=True)
    assert note == "0, to which the smallest are rounded, has no place on a logarithmic scale"


def test_multiples_lie_between_the_ends() -> None:
    """Ray rounds both bounds inwards to multiples, and draws between these."""
    assert points(multiples(0.05, 0.52, 0.1)[0]) == {0.1, 0.2, 0.3, 0.4, 0.5}
    assert multiples(10, 100, 16, log=True)[0] == Range(16, 96, log=True, integer=True)
    with pytest.raises(RequestError, match=r"0.05 to 0.08: there is no multiple of 0.1 in that range"):
        multiples(0.05, 0.08, 0.1)


def test_a_normal_distribution_that_rounds_keeps_its_steps() -> None:
    domain, note = normal(128, 32, "qnormal(128, 32, 16)", q=16)
    assert domain == Range(64, 192, step=16, integer=True)
    assert note == "qnormal(128, 32, 16) has no equivalent: 64 to 192 in steps of 16, evenly, replaces it"
    assert normal(0.5, 0.1, "", q=0.05)[0] == Range(0.3, 0.7, step=0.05)
    assert normal(4, 1, "", q=1)[0] == Range(2, 6, integer=True)
    assert normal(5, 0.1, "qnormal(5, 0.1, 1)", q=1) == (
        Constant(5),
        "qnormal(5, 0.1, 1) has no equivalent: 5 replaces it",
    )
    domain, note = normal(5, 0.5, "qlognormal(5, 0.5, 32)", log=True, q=32)
    assert domain == Range(64, 416, log=True, integer=True)
    assert note.endswith("; its steps of 32 on a logarithmic scale have no equivalent and are left out")


@pytest.mark.parametrize(
    ("parameter", "field"),
    [
        ("{distribution: q_normal, mu: 128, sigma: 32, q: 16}", "Int(64, 192, step=16)"),
        ("{distribution: q_log_normal, mu: 5, sigma: 0.5, q: 32}", "Int(64, 416, log=True)"),
        ("{_type: qnormal, _value: [128, 32, 16]}", "Int(64, 192, step=16)"),
        ("{_type: qlognormal, _value: [3, 0.3, 1]}", "Int(11, 37, log=True)"),
        ("tune.qrandn(128, 32, 8)", "Int(64, 192, step=8)"),
        ("tune.qlograndint(10, 100, 16)", "Int(16, 96, log=True)"),
        ("tune.qloguniform(1, 64, 1)", "Int(1, 64, log=True)"),
        ("tune.quniform(0.05, 0.5, 0.1)", "Float(0.1, 0.5, step=0.1)"),
    ],
)
def test_a_loop_has_the_steps_of_what_rounds(parameter: str, field: str, tmp_path: Path) -> None:
    texts = {
        "{d": f"method: random\nparameters: {{a: {parameter}}}",
        "{_": f"a: {parameter}",
        "tu": f"{IMPORT}space = {{'a': {parameter}}}\ntune.run(t, config=space)",
    }
    file = tmp_path / ("theirs.py" if parameter.startswith("tune") else "theirs.yaml")
    file.write_text(texts[parameter[:2]], encoding="utf-8")
    loop = import_loop(file, tmp_path / "loop.py", ImportOptions()).loop
    assert loop is not None
    assert f" = hpo.{field}" in loop


def test_steps_of_a_logarithmic_scale_are_left_out_and_said() -> None:
    assert clipped(1, 64, 1, log=True) == (Range(1, 64, log=True, integer=True), "")
    domain, note = clipped(0.001, 0.1, 0.001, log=True)
    assert domain == Range(0.001, 0.1, log=True)
    assert note == "its steps of 0.001 on a logarithmic scale have no equivalent and are left out"


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ([1, 1, 2], "a: its values are not equally likely there (0.667, 0.333), and are here"),
        ([1, 1.0, 2], "a: values that are equal are likelier there, and are one each here"),
        ([1, 1, 2, 2], ""),
    ],
)
def test_values_that_are_likelier_there_are_said_in_a_loop(values: list[float], note: str, tmp_path: Path) -> None:
    file = tmp_path / "theirs.json"
    file.write_text(json.dumps({"a": {"_type": "choice", "_value": values}}), encoding="utf-8")
    notes = import_loop(file, tmp_path / "loop.py", ImportOptions()).notes
    assert [each for each in notes if each.startswith("a: ")] == ([note] if note else [])


def test_numbers_that_a_list_of_katib_repeats_are_likelier(tmp_path: Path) -> None:
    a = {"name": "a", "parameterType": "discrete", "feasibleSpace": {"list": ["1", "1", "2", "3"]}}
    spec = {"objective": {}, "algorithm": {}, "parameters": [a]}
    (found,) = read_json(tmp_path, {"kind": "Experiment", "spec": spec}).parameters
    assert found.domain == Choices((1, 2, 3), (0.5, 0.25, 0.25))


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
    # The condition of warmup is about a range of real numbers, and said to be left out; the epochs are the function's.
    unread = {"warmup", "epochs"}
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
        ("tune.choice(list(np.linspace(0, 0.5, 3)) + 2 * [1])", Choices((0.0, 0.25, 0.5, 1), (0.2, 0.2, 0.2, 0.4))),
        ("open('secret').read()", Computed("open('secret').read()")),
    ],
)
def test_expressions_of_python_are_read_and_not_run(tmp_path: Path, expression: str, domain: ForeignDomain) -> None:
    assert read(tmp_path, RAY % expression).parameters[0].domain == domain


@pytest.mark.parametrize(
    "expression",
    [
        "9 ** 9 ** 9", "'{:>999999999}'.format(1)", "'%999999999d' % 1", "list(range(10 ** 9))", "[0] * 10 ** 9",
        "'a' * 10 ** 9", "np.linspace(0, 1, 3) * 2", "np.array([1, 2]) + np.array([3, 4])",
        "-" * 50 + "x", "np.arange(0, 1, 1e-300)", "[[i for i in range(999)] for j in range(999)]", "(-8) ** 0.5",
        "__import__('os').getcwd()",
    ],
)  # fmt: skip
def test_expressions_that_are_too_large_or_call_anything_are_not_evaluated(expression: str) -> None:
    source = parse_source(f"import numpy as np\nx = {expression}")
    with pytest.raises(UnreadableError):
        source.evaluate(source.assigned["x"])


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".yaml", sweeper("basic", params={"opt": "adam,sgd", "opt.n": "1,2", "opt.net": "a,b", "opt.net.n": "1,2"})),
        (".yaml", sweeper("basic", params={"opt/net": "a,b", "opt.net._value_": "1,2", "opt.n": "1,2", "opt": "a"})),
        (".yaml", "method: grid\nparameters: {opt: {values: [a, b]}, opt.lr: {values: [1, 2]}}"),
        (".yaml", "method: grid\nparameters: {opt.lr: {values: [1, 2]}, opt: {parameters: {lr: {values: [3, 4]}}}}"),
        (".py", IMPORT + "space = {'opt': tune.choice(['a', 'b'])}\nspace['opt']['lr'] = tune.choice([1, 2])"),
        (".py", "def f(t):\n    t.suggest_categorical('opt', ['a', 'b'])\n    t.suggest_int('opt.lr', 1, 3)"),
    ],
)  # fmt: skip
def test_a_parameter_may_be_a_table_of_others_in_a_loop(tmp_path: Path, suffix: str, text: str) -> None:
    path = tmp_path / f"theirs{suffix}"
    path.write_text(text, encoding="utf-8")
    scope: dict[str, Any] = {"__name__": "their_loop"}
    exec(import_loop(path, tmp_path / "their_loop.py", ImportOptions()).loop.partition("@hpo.training_loop")[0], scope)
    values = {name: number for number, name in enumerate(scope["PATHS"])}
    assert len(values) == len(read_search(path).parameters)
    written = scope["as_written"](SimpleNamespace(**values))
    assert scope["as_parameters"](written) == values


def test_a_nested_choice_of_nni_has_its_name_where_nni_has_it(tmp_path: Path) -> None:
    scope: dict[str, Any] = {"__name__": "their_loop"}
    loop = import_loop(CORPUS / "nni" / "nested.json", tmp_path / "their_loop.py", ImportOptions()).loop
    exec(loop.partition("@hpo.training_loop")[0], scope)
    values = {"network": "deep", "network_layers": 3, "network_block": "slim", "network_block_size_2": 8, "lr": 0.1}
    written = {"network": {"_name": "deep", "layers": 3, "block": {"_name": "slim", "size": 8}}, "lr": 0.1}
    assert scope["as_written"](SimpleNamespace(**values, network_block_size=64)) == written
    assert scope["as_parameters"](written) == values


# Bad files.


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".py", IMPORT + "space = {'x': tune.uniform(0, 1)", "line 2: is no valid Python: '{' was never closed"),
        (".py", IMPORT + "(" * 5000, "line 2: is no valid Python: too many nested parentheses"),
        (".py", IMPORT + "x = {'a': tune.choice([1, 2]), **x, **x}", "its tables are parts of each other too often"),
        (".py", IMPORT + "x = {'a': tune.choice([1, 2])}\n" + "x.update(x)\n" * 3, "its tables are parts"),
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
        (".py", "import keras_tuner as kt\n", "is Python of KerasTuner, which is not read; import the oracle.json"),
        (".py", "from nni.experiment import Experiment\n", "is Python of NNI, which is not read"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_in_a_line(tmp_path: Path, suffix: str, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text, suffix)


def test_all_parameters_that_are_wrong_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ImportRefusedError) as error:
        read_json(tmp_path, {name: {"_type": "randint", "_value": [5, 1]} for name in "ab"})
    assert [line.partition(":")[0] for line in error.value.lines] == ["a", "b"]
    assert str(error.value).endswith("2 parameters cannot be read, each on a line above")


@pytest.mark.parametrize(
    ("suffix", "text", "name", "expression"),
    [
        (".py", RAY % "tune.choice(load())", "x", "tune.choice(load())"),
        (".py", RAY % "tune.uniform(0, high())", "x", "tune.uniform(0, high())"),
        (".py", "def f(t):\n    t.suggest_int('n', low(), 3)\n    t.suggest_int('m', 1, 3)", "n", "low(), 3)"),
        (".yaml", sweeper("nevergrad", params={"n": {"init": 2, "log": True}, "m": [1]}), "n", "{init: 2, log: true}"),
    ],
)  # fmt: skip
def test_values_that_only_the_other_tool_knows_are_refused_left_out_or_stand_in_the_loop(
    tmp_path: Path, suffix: str, text: str, name: str, expression: str
) -> None:
    assert refusal(tmp_path, text, suffix).startswith(f"{name}: ")
    path = tmp_path / f"theirs{suffix}"
    assert name in [each.name for each in read_search(path, [name]).parameters]
    loop = import_loop(path, tmp_path / "their_loop.py", ImportOptions())
    assert expression in loop.loop
    assert any(note.startswith(f"{name}: ") for note in loop.notes)


def test_what_is_wrong_may_be_left_out_but_not_of_a_loop(tmp_path: Path) -> None:
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps({name: {"_type": "randint", "_value": [5, 1]} for name in "ab"}), encoding="utf-8")
    with pytest.raises(RequestError, match=r"theirs\.json: b: from 5 to below 1"):
        read_search(path, ["a"])
    with pytest.raises(RequestError, match="2 parameters cannot be read"):
        import_loop(path, tmp_path / "their_loop.py", ImportOptions())


def test_all_that_is_wrong_with_an_experiment_is_named_at_once(tmp_path: Path) -> None:
    spec = {
        "objective": {"type": "most", "goal": "high"},
        "algorithm": {"algorithmName": "random"},
        "parameters": [{"name": "a"}, {"name": "b"}],
        "maxTrialCount": 0,
    }
    assert _named(tmp_path, {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "spec": spec}) == [
        *("a", "b", "spec.objective.type = 'most'", "spec.objective.goal = 'high'", "spec.maxTrialCount = 0"),
    ]
    space = {name: {"_type": "randint", "_value": [5, 1]} for name in "ab"}
    tuner = {"name": "TPE", "classArgs": {"optimize_mode": "most"}}
    assert _named(tmp_path, {"searchSpace": space, "tuner": tuner, "maxTrialNumber": 0}) == [
        *("a", "b", "tuner", "maxTrialNumber = 0"),
    ]
    sweep = {
        "method": "best",
        "metric": {"name": "loss", "goal": "maximise"},
        "run_cap": 0,
        "early_terminate": {"type": "median"},
        "parameters": {"a": {"min": 1}, "b": {"parameters": {"c": {"values": []}}}, "d": {"value": 1, "mean": 2}},
    }
    assert _named(tmp_path, sweep) == [
        *("a", "b.c", "d", "metric.goal = 'maximise'", "method = 'best'"),
        *("run_cap = 0", "early_terminate = {'type'"),
    ]


def _named(tmp_path: Path, document: dict[str, Any]) -> list[str]:
    """Return what the lines of a refusal begin with."""
    with pytest.raises(ImportRefusedError) as error:
        read_json(tmp_path, document)
    return [line.partition(":")[0] for line in error.value.lines]


def test_a_database_needs_no_import(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    optuna.create_study(storage=f"sqlite:///{path}")
    with pytest.raises(RequestError, match=f"hpo list --storage sqlite:///{path}"):
        read_search(path)
