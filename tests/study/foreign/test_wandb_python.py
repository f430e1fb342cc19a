"""Sweeps of Weights & Biases in Python files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo.errors import RequestError
from hpo.study.foreign.readers import read_search
from hpo.study.foreign.search import Choices, Computed, Constant, ForeignSearch

SWEEP = """import wandb
config = {"method": "random", "parameters": {"lr": {"values": [0.1, 0.2]}, "n": {"value": 1}}}
"""
RUN = "wandb.sweep(config, project='x')\n"


def read(folder: Path, text: str) -> ForeignSearch:
    path = folder / "search.py"
    path.write_text(text, encoding="utf-8")
    return read_search(path)


def domains(search: ForeignSearch) -> dict[str, Any]:
    return {each.name: each.domain for each in search.parameters}


LR, N = Choices((0.1, 0.2)), Constant(1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SWEEP + RUN, {"lr": LR, "n": N}),
        (SWEEP + "id = wandb.sweep(sweep=config)", {"lr": LR, "n": N}),
        (SWEEP.replace("import wandb\n", ""), {"lr": LR, "n": N}),
        ("from wandb import sweep\n" + SWEEP + "sweep(config)", {"lr": LR, "n": N}),
        (SWEEP + "config['parameters']['n'] = {'value': 2}\n" + RUN, {"lr": LR, "n": Constant(2)}),
        (SWEEP + "config['parameters']['n']['value'] = 2\n" + RUN, {"lr": LR, "n": Constant(2)}),
        (SWEEP + "config['parameters'].update(m={'value': 2})\n" + RUN, {"lr": LR, "n": N, "m": Constant(2)}),
        (SWEEP + "config['parameters'].update({'n': {'value': 2}})\n" + RUN, {"lr": LR, "n": Constant(2)}),
        (SWEEP + "del config['parameters']['n']\n" + RUN, {"lr": LR}),
        (SWEEP + "config['parameters'].pop('n')\n" + RUN, {"lr": LR}),
        (SWEEP + "more = {'value': 3}\nconfig['parameters']['n'] = more\nmore['value'] = 4\n" + RUN,
         {"lr": LR, "n": Constant(4)}),
        ("p = dict(n=dict(value=1))\nimport wandb\nwandb.sweep(dict(method='grid', parameters={**p, 'lr': {'values': "
         "[0.1, 0.2]}}))", {"n": N, "lr": LR}),
        (SWEEP + "config['parameters']['n'] = {'value': args.n}\n" + RUN, {"lr": LR, "n": Computed("args.n")}),
        # A name that is an argument elsewhere.
        (SWEEP + "config['parameters']['n'] = {'value': 2}\ndef train(config): pass\n" + RUN,
         {"lr": LR, "n": Constant(2)}),
        ("import wandb\ndef make():\n    return {'method': 'grid', 'parameters': {'n': {'value': 1}}}\n"
         "wandb.sweep(make())", {"n": N}),
    ],
)  # fmt: skip
def test_a_table_is_read_with_what_is_added_to_it(tmp_path: Path, text: str, expected: dict[str, object]) -> None:
    assert domains(read(tmp_path, text)) == expected


def test_other_keys_are_read_as_those_of_a_yaml_file(tmp_path: Path) -> None:
    lines = "config['metric'] = {'name': 'loss', 'goal': 'minimize'}\nconfig['run_cap'] = 7\nconfig['name'] = 'mine'\n"
    search = read(tmp_path, SWEEP + lines + RUN)
    assert (search.metric, search.direction, search.trials, search.name) == ("loss", "minimize", 7, "mine")


def test_the_count_of_agents_is_the_number_of_trials_where_the_sweep_has_none(tmp_path: Path) -> None:
    agent = "wandb.agent(id, train, count=5)\n"
    search = read(tmp_path, SWEEP + RUN + agent)
    assert search.trials == 5
    assert "wandb.agent has count = 5 in each process; here it is that of all trials" in search.notes
    search = read(tmp_path, SWEEP + RUN + "wandb.agent(id, train, None, None, 5)\nwandb.agent(id, train, count=7)\n")
    assert search.trials == 12
    assert "count = 5 (line 4) and count = 7 (line 5): here 12 trials in all" in search.notes
    search = read(tmp_path, f"{SWEEP}{RUN}for _ in X:\n    {agent}")
    assert "wandb.agent(id, train, count=5) (line 5) stands in the loop of line 4: its count counts once here" in (
        search.notes
    )
    assert read(tmp_path, SWEEP + RUN + agent + "wandb.agent(id, count=args.n)").notes == (
        "count = 5 (line 4) and count = args.n (line 5): known only when the file runs",
    )


@pytest.mark.parametrize(("cap", "trials"), [(3, 3), (7, 5)])
def test_the_smaller_of_a_cap_and_of_agents_counts_is_the_number_of_trials(
    tmp_path: Path, cap: int, trials: int
) -> None:
    search = read(tmp_path, SWEEP + f"config['run_cap'] = {cap}\n" + RUN + "wandb.agent(id, train, count=5)\n")
    assert search.trials == trials
    expected = f"run_cap = {cap} and count = 5 (line 5): the smaller, {trials}, is the number of trials here"
    assert expected in search.notes


@pytest.mark.parametrize(
    ("lines", "n", "m", "notes"),
    [
        ("if X:\n    p['m'] = {'value': 2}\n", 1, 2, ["`p['m'] = {'value': 2}` in line 7 is read as if its condition "
         "always held"]),
        ("if X:\n    p['n'] = {'value': 2}\n", 1, None, ["`p['n'] = {'value': 2}` in line 7 is left out: it would "
         "change a value under a condition"]),
        ("if X:\n    p['n']['value'] = 2\n", 1, None, ["`p['n']['value'] = 2` in line 7 is left out: it would "
         "change a value under a condition"]),
        ("if X:\n    del p['n']\n", 1, None, ["`del p['n']` in line 7 is left out: it would change a value under a "
         "condition"]),
        ("if X:\n    p['m'] = {'value': 2}\nelse:\n    p['m'] = {'value': 3}\n", 1, 3, ["`p['m'] = {'value': 2}` in "
         "line 7 is left out: line 9 sets the same", "`p['m'] = {'value': 3}` in line 9 is read as if its condition "
         "always held"]),
        ("if X:\n    other['m'] = 1\n", 1, None, []),
        ("p['n'] = {'value': 2}\n", 2, None, []),
    ],
)  # fmt: skip
def test_a_change_under_a_condition_is_said_and_replaces_nothing(
    tmp_path: Path, lines: str, n: int, m: int | None, notes: list[str]
) -> None:
    table = "p = {'n': {'value': 1}}\nconfig['parameters'] = p\nother = {}\n"
    search = read(tmp_path, SWEEP + table + lines + RUN)
    assert domains(search) == {"n": Constant(n)} | ({} if m is None else {"m": Constant(m)})
    assert [note for note in search.notes if "in line" in note] == notes


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ("for k, v in {'a': [1, 2], 'b': [3, 4]}.items():\n    p[k] = {'values': v}\n", ["lr", "a", "b"]),
        ("for k in ['a', 'b']:\n    p[k] = {'values': [1, 2]}\n", ["lr", "a", "b"]),
        ("for k in ['a', 'b']:\n    for i in range(2):\n        p[f'{k}{i}'] = {'value': i}\n",
         ["lr", "a0", "a1", "b0", "b1"]),
        ("for k, (low, high) in [('a', (1, 2))]:\n    p.update({k: {'min': low, 'max': high}})\n", ["lr", "a"]),
    ],
)  # fmt: skip
def test_a_loop_over_written_values_adds_what_it_does(tmp_path: Path, lines: str, names: list[str]) -> None:
    table = "p = {'lr': {'values': [0.1, 0.2]}}\nconfig['parameters'] = p\n"
    search = read(tmp_path, SWEEP + table + lines + RUN)
    assert [each.name for each in search.parameters] == names
    assert not any("condition" in note for note in search.notes)


@pytest.mark.parametrize(
    "lines",
    [
        "for k in names:\n    config['parameters'][k] = {'value': 1}\n",
        "for k in ['a', 'b']:\n    k = k + x\n    config['parameters'][k] = {'value': 1}\n",
        "for k in ['a', 'b']:\n    config['parameters'][k] = {'value': 1}\n    break\n",
    ],
)
def test_any_other_loop_is_not_read(tmp_path: Path, lines: str) -> None:
    with pytest.raises(RequestError, match=r"the key k .* is known only when the file runs"):
        read(tmp_path, SWEEP + lines + RUN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SWEEP + "config['parameters']['n'] = {'values': load()}\n" + RUN,
         "parameters.n: load() (line 3) is known only when the file runs; write its values there"),
        (SWEEP + "config['method'] = args.method\n" + RUN, "method: args.method (line 3) is known only when the file"),
        (SWEEP + "config['parameters'][name] = {'value': 1}\n" + RUN, "the key name (line 3) is known only when"),
        ("import wandb\nwandb.sweep(yaml.safe_load(open('sweep.yaml')))",
         "the sweep, yaml.safe_load(open('sweep.yaml')) (line 2), is known only when the file runs"),
        ("import wandb\nwandb.sweep({'method': 'grid'})", "the sweep, {'method': 'grid'} (line 2), is known only when"),
        (SWEEP + "b = {'method': 'grid', 'parameters': {}}\nwandb.sweep(b)\n" + RUN, "has 2 sweeps (lines 2, 3)"),
        ("# wandb.sweep(config)\n", "has no sweep of Weights & Biases: no table with `method` and `parameters`"),
        (SWEEP.replace("random", "best") + RUN, "method = 'best': unknown method 'best'"),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_be_read_is_refused_in_a_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RequestError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'search.py'}: {message}")


@pytest.mark.parametrize(
    "line",
    [
        "config['parameters'] = {'a': config, 'b': config}",
        "config['parameters'].update(config)\nconfig.update(config['parameters'])",
        "config['parameters'] = p\np = {**q, **q}\nq = {**p, **p}",
    ],
)
def test_a_table_that_holds_itself_ends(tmp_path: Path, line: str) -> None:
    with pytest.raises(RequestError):
        read(tmp_path, f"{SWEEP}{line}\n{RUN}")
