"""Damage to a database: one attribute or row of the study `random` of a healthy one is replaced."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["DECLARED", "PATHS", "Damage", "list_damage"]

STUDY, EVALUATION = 1, 2  # ids of `random` and of its evaluation
SCRIPT = "<script>alert(1)</script>"
# What JSON may hold, and what is none.
TEXTS: Mapping[str, str] = {
    "null": "null",
    "list": "[]",
    "pairs": "[[1, 2], [3]]",
    "object": "{}",
    "text": '"abc"',
    "true": "true",
    "negative": "-7",
    "fraction": "0.5",
    "1e300": "1e300",
    "NaN": "NaN",
    "infinity": "-Infinity",
    "digits": "9" * 5000,
    "long number": "9" * 200,
    "nested": "[" * 100_000 + "]" * 100_000,
    "nested objects": '{"a":' * 3000 + "1" + "}" * 3000,
    "5 MB": json.dumps("x" * 5_000_000),
    "path": '"../../victim"',
    "script": json.dumps(SCRIPT),
    "surrogate": '"\\ud800"',
    "escape": '"\\u001b[31m\\u0000"',
    "no JSON": "{'a': 1}",
    "empty": "",
}
VALUES: Mapping[str, Any] = {
    "null": None,
    "list": [[1], {"a": 2}],
    "object": {"a": [None]},
    "text": SCRIPT,
    "true": True,
    "negative": -3,
    "1e300": 1e300,
    "NaN": float("nan"),
    "whole": 10**30,
    "path": "/../../victim",
}
REMOVED = object()
NUMBERS: Mapping[str, Any] = {
    "null": None,
    "text": "abc",
    "negative": -5,
    "1e300": 1e300,
    "infinity": float("inf"),
    "large": 2**62,
    "half": 0.5,
    "bytes": b"\xff\xfe",
}


@dataclass(frozen=True)
class Damage:
    """Damage to one place of the database, under a name."""

    name: str
    statements: tuple[tuple[str, tuple[Any, ...]], ...]

    def do(self, file: Path) -> None:
        """Damage a database."""
        connection = sqlite3.connect(file)
        with connection:
            changed = [connection.execute(*statement).rowcount for statement in self.statements]
        connection.close()
        assert all(changed), self.name


def _set(name: str, statement: str, *values: Any) -> Damage:
    return Damage(name, ((statement, values),))


def _attribute(table: str, owner: int, key: str, kind: str, text: str, name: str = "") -> Damage:
    column = "study_id" if table.startswith("study") else "trial_id"
    statement = (
        f"INSERT INTO {table}_attributes ({column}, key, value_json) VALUES (?, ?, ?) "
        f"ON CONFLICT ({column}, key) DO UPDATE SET value_json = excluded.value_json"
    )
    return _set(name or f"{table} {key}: {kind}", statement, owner, key, text)


def _attributes() -> Iterator[Damage]:
    for key in ("hpo:definition", "hpo:budget", "hpo:deadline", "hpo:slots", "hpo:data_facts", "hpo:unknown"):
        for kind, text in TEXTS.items():
            yield _attribute("study_user", STUDY, key, kind, text)
    artifact = "artifacts:3c6469b0ac7918ef20bea0a26ec02d22"
    plot = "dashboard:plot_data:hpo-curves:0"
    for key in (
        "study:metric_names",
        artifact,
        "hpo:look:2e6236954a27c289",
        "dashboard:note_ver",
        plot,
        "tpe:parent:0",
    ):
        for kind, text in TEXTS.items():
            yield _attribute("study_system", STUDY, key, kind, text)
    for key in (
        *("attempt", "best_epoch", "cohort", "last_epoch", "parameter_count", "train_seconds", "widths", "worker"),
        *("failure", "message", "deaths", "width", "test_accuracy", "own"),
    ):
        for kind, text in TEXTS.items():
            yield _attribute("trial_user", 2, key, kind, text)
    for key in ("fixed_params", "hpo:environment", "artifacts:0123456789abcdef", "constraints", "own"):
        for kind, text in TEXTS.items():
            yield _attribute("trial_system", 2, key, kind, text)
    for key, kind in (
        ("best_epoch", "text"),
        ("parameter_count", "script"),
        ("train_seconds", "list"),
        ("test_accuracy", "list"),
    ):
        yield _attribute("trial_user", 5, key, f"{kind} of the evaluation", TEXTS[kind])
    for kind in ("list", "no JSON"):
        yield _attribute("trial_system", 5, "fixed_params", f"{kind} of the evaluation", TEXTS[kind])
        yield _attribute("study_user", EVALUATION, "hpo:definition", f"{kind} of the evaluation", TEXTS[kind])
        yield _attribute("study_user", EVALUATION, "hpo:budget", f"{kind} of the evaluation", TEXTS[kind])


def _inside(healthy: Path) -> Iterator[Damage]:
    """Yield damage inside of definitions and budgets, one key at a time."""
    connection = sqlite3.connect(healthy)
    for owner, key in ((STUDY, "hpo:definition"), (STUDY, "hpo:budget"), (EVALUATION, "hpo:definition")):
        query = "SELECT value_json FROM study_user_attributes WHERE study_id = ? AND key = ?"
        stored = json.loads(connection.execute(query, (owner, key)).fetchone()[0])
        for path in _paths(stored):
            if owner == EVALUATION and path[0] not in ("evaluation", "parameters"):
                continue
            for kind, value in {**VALUES, "removed": REMOVED}.items():
                name = f"inside of {owner} {key}.{'.'.join(map(str, path))}: {kind}"
                yield _attribute("study_user", owner, key, kind, json.dumps(_replace(stored, path, value)), name)
        if (owner, key) == (STUDY, "hpo:definition"):
            yield from _inside_declarations({**stored, **DECLARED})
        for name, more in EXTRA.get(key, {}).items() if owner == STUDY else ():
            yield _attribute("study_user", owner, key, name, json.dumps({**stored, **more}), f"inside of {key}: {name}")
    connection.close()


def _inside_declarations(stored: dict[str, Any]) -> Iterator[Damage]:
    """Yield a study that declares a model of the user's own, healthy and damaged."""
    paths = [("declarations", *path) for path in _paths(stored["declarations"])]
    yield _attribute("study_user", STUDY, "hpo:definition", "declared", json.dumps(stored))
    for path in paths:
        for kind, value in {**VALUES, "ours": "epochs", "backtracking": "(a+)+$", "removed": REMOVED}.items():
            name = f"inside of declarations: {'.'.join(map(str, path))}: {kind}"
            text = json.dumps(_replace(stored, path, value))
            yield _attribute("study_user", STUDY, "hpo:definition", kind, text, name)


# What a study of a model of the user's own has more, of which no code is here.
DECLARED: dict[str, Any] = {
    "parameters": {"model": {"value": "own"}, "blocks": {"choices": [1, 2]}, "optimizer": {"choices": ["adam", "sgd"]}},
    "baseline": None,
    "modules": {"model:own": "own_code"},
    "declarations": {
        "version": 1,
        "models": [
            {
                "name": "own",
                "module": "own_code",
                "uses": ["width", "depth"],
                "reconstructs": False,
                "loop": False,
                "rows": [
                    {"name": "blocks", "kind": "int", "default": 1, "help": "blocks", "low": 1.0, "high": 4.0},
                    {"name": "kind", "kind": "str", "default": "a", "choices": ["a", "b"], "optional": True},
                ],
            }
        ],
        "metrics": [{"name": "error", "module": "own_code", "direction": "minimize", "reported": False}],
    },
}
EXTRA: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "hpo:budget": {"trials 10**9": {"trials": 10**9}, "unknown key": {"x": 1}, "target": {"target": -1e300}},
    "hpo:definition": {
        "no objectives": {"objectives": []},
        "direction": {"objectives": [{"metric": "val_loss", "direction": "sideways"}]},
        "two objectives": {"objectives": [{"metric": m, "direction": "minimize"} for m in ("val_loss", "val_loss")]},
        "metric": {"objectives": [{"metric": SCRIPT, "direction": "minimize"}]},
        "sampler": {"sampler": {"name": "tpe", "options": {"n_startup_trials": -1}}},
        "options": {"sampler": {"name": "tpe", "options": {"a": [1]}}},
        "pruner": {"pruner": {"name": "hyperband", "options": {"max_resource": "many"}}},
        "fine steps": {"parameters": {"learning_rate": {"low": 0.0, "high": 1.0, "step": 1e-15}}},
        "many choices": {"parameters": {"width": {"choices": [*range(1, 300_000)]}}},
        "cycle": {"parameters": {"width": {"value": 3, "when": {"width": 3}}}},
        "unknown parameter": {"parameters": {SCRIPT: 1}},
        "unknown model": {"parameters": {"model": "../../victim"}, "modules": {"model:../../victim": "os"}},
        "baseline": {"baseline": {"width": -3}},
        "unknown baseline": {"baseline": {"a": 1}},
        "constraint": {"constraints": [{"metric": "x", "at_most": True, "bound": float("nan")}]},
        "warm start": {"warm_start": [{"width": "x"}, {"a": 1}]},
        "report": {"report": {"y": []}},
        "report of what is not there": {"report": {"y": ["x"], "x": "y", "compare": ["z"], "log": ["q"]}},
        "report by a text": {"report": {"y": ["val_loss"], "x": "optimizer", "compare": ["optimizer"], "knee": "k"}},
        "steps": {"record_steps": True},
        "seed": {"seed": -1},
        "large seed": {"seed": 2**70},
        "device": {"dataset": {"name": "/dev/zero", "sha256": {"zero": "0"}}},
        "folder": {"dataset": {"name": "/", "sha256": {}}},
        "evaluation of itself": {"evaluation": {"of": "random", "candidates": [], "metrics": []}},
        "evaluation of nothing": {"evaluation": {"of": "../../victim", "candidates": [], "metrics": ["val_loss"]}},
        "version": {"version": 2},
    },
}


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        if key != "values":  # a candidate's, of which there are many
            yield from _paths(child, (*at, key))


def _replace(stored: Any, path: tuple[Any, ...], value: Any) -> Any:
    copied = json.loads(json.dumps(stored))
    owner = copied
    for key in path[:-1]:
        owner = owner[key]
    if value is REMOVED:
        del owner[path[-1]]
    else:
        owner[path[-1]] = value
    return copied


def _rows() -> Iterator[Damage]:
    """Yield damage to rows: a column's value is replaced; SQLite holds whatever it is given."""
    for kind, text in {
        **TEXTS,
        "unknown": '{"name": "NoDistribution", "attributes": {}}',
        "no attributes": '{"name": "FloatDistribution"}',
        "attributes": '{"name": "FloatDistribution", "attributes": {"low": "a", "high": [], "log": 3, "step": {}}}',
        "argument": '{"name": "FloatDistribution", "attributes": {"low": 0, "high": 1, "evil": 1}}',
        "choices": '{"name": "CategoricalDistribution", "attributes": {"choices": []}}',
        "nested choices": '{"name": "CategoricalDistribution", "attributes": {"choices": [[1], {"a": 2}]}}',
        "other choices": json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": [SCRIPT, None]}}),
        "steps": '{"name": "IntDistribution", "attributes": {"low": 0, "high": 10, "step": 0, "log": false}}',
        "reversed": '{"name": "IntDistribution", "attributes": {"low": 10, "high": 0, "step": 1, "log": false}}',
    }.items():
        yield _set(f"distribution: {kind}", "UPDATE trial_params SET distribution_json = ? WHERE param_id = 3", text)
    for kind, value in {**NUMBERS, "index": 99.0}.items():
        yield _set(f"category: {kind}", "UPDATE trial_params SET param_value = ? WHERE param_id = 3", value)
        yield _set(f"parameter: {kind}", "UPDATE trial_params SET param_value = ? WHERE param_id = 2", value)
    yield _set("parameter's name: script", "UPDATE trial_params SET param_name = ? WHERE param_id = 3", SCRIPT)
    yield _set("parameter's name: path", "UPDATE trial_params SET param_name = ? WHERE param_id = 3", "../../victim")
    for kind, value in NUMBERS.items():
        if kind != "null":
            yield _set(
                f"step: {kind}", "UPDATE trial_intermediate_values SET step = ? WHERE trial_id = 2 AND step = 1", value
            )
            yield _set(f"direction: {kind}", "UPDATE study_directions SET direction = ? WHERE study_id = 1", value)
            yield _set(f"state: {kind}", "UPDATE trials SET state = ? WHERE trial_id = 2", value)
            yield _set(f"metrics: {kind}", "UPDATE hpo_epochs SET metrics = ? WHERE trial_id = 2 AND epoch = 2", value)
        for column in ("value", "value_type"):
            if kind != "null" or column == "value":
                yield _set(f"{column}: {kind}", f"UPDATE trial_values SET {column} = ? WHERE trial_id = 2", value)
        yield _set(
            f"reported: {kind}", "UPDATE trial_intermediate_values SET intermediate_value = ? WHERE trial_id = 2", value
        )
        yield _set(f"number: {kind}", "UPDATE trials SET number = ? WHERE trial_id = 2", value)
        yield _set(f"began: {kind}", "UPDATE trials SET datetime_start = ? WHERE trial_id = 2", value)
        yield _set(f"ended: {kind}", "UPDATE trials SET datetime_complete = ? WHERE trial_id = 2", value)
        yield _set(f"value of the evaluation: {kind}", "UPDATE trial_values SET value = ? WHERE trial_id = 5", value)
        for column in ("told", "cohorts", "members", "training", "since", "until"):
            if value is not None:
                yield _set(f"work {column}: {kind}", f"UPDATE hpo_work SET {column} = ? WHERE study_id = 1", value)
    for kind, text in TEXTS.items():
        yield _set(f"epoch: {kind}", "UPDATE hpo_epochs SET metrics = ? WHERE trial_id = 2 AND epoch = 2", text)
    for kind, value in VALUES.items():
        metrics = json.dumps(
            {"epoch": value, "val_accuracy": value, "val_loss": value, "train_loss": value, SCRIPT: value}
        )
        yield _set(f"metric: {kind}", "UPDATE hpo_epochs SET metrics = ? WHERE trial_id = 2 AND epoch = 3", metrics)
    for kind, value in {"text": "abc", "odd": b"abc", "unequal": b"\0" * 8, "empty": b""}.items():
        insert = "INSERT INTO hpo_steps (trial_id, attempt, epoch, study_id, losses, seconds) VALUES (2, 1, 1, 1, ?, ?)"
        change = "replace(value_json, '\"record_steps\": false', '\"record_steps\": true')"
        record = f"UPDATE study_user_attributes SET value_json = {change}"
        yield Damage(f"steps: {kind}", ((insert, (value, b"\0" * 4)), (record, ())))
    samples = "INSERT OR REPLACE INTO hpo_samples (trial_id, attempt, fit, study_id, content) VALUES (2, ?, ?, 1, ?)"
    for kind, row in {
        "text": (1, 0, "abc"),
        "bytes": (1, 0, b"abc"),
        "fit": (1, "x", b""),
        "try": ("x", 0, b""),
    }.items():
        yield Damage(f"samples: {kind}", ((samples, row),))
    splits = "INSERT INTO hpo_splits (study_id, digest, content) VALUES (1, 'x', ?)"
    for kind, content in {"text": "abc", "bytes": b"abc", "number": 1}.items():
        yield Damage(f"split: {kind}", ((splits, (content,)),))
    yield _set("no values", "DELETE FROM trial_values WHERE trial_id = 2")
    yield _set("no directions", "DELETE FROM study_directions WHERE study_id = 1")
    yield _set(
        "one value more",
        "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (2, 1, 3.0, 'FINITE')",
    )
    yield _set("two trials of a number", "UPDATE trials SET number = 0 WHERE study_id = 1")
    yield _set("failed", "UPDATE trials SET state = 'FAIL' WHERE trial_id = 2")
    yield _set("running", "UPDATE trials SET state = 'RUNNING' WHERE trial_id = 2")
    yield _set("waiting", "UPDATE trials SET state = 'WAITING' WHERE trial_id = 2")
    for state in ("FAIL", "WAITING", "RUNNING"):
        to = ("UPDATE trials SET state = ? WHERE trial_id = 2", (state,))
        for kind in ("list", "text", "nested", "no JSON", "null"):
            for key in ("deaths", "attempt", "failure", "message"):
                other = _attribute("trial_user", 2, key, kind, TEXTS[kind])
                yield Damage(f"{state}, {other.name}", (to, *other.statements))
            other = _attribute("trial_system", 2, "fixed_params", kind, TEXTS[kind])
            yield Damage(f"{state}, {other.name}", (to, *other.statements))
    worker = "INSERT INTO hpo_workers VALUES (?, 1, ?, ?, ?, ?, ?, ?)"
    for kind, value in NUMBERS.items():
        if value is not None:
            yield _set(f"worker: {kind}", worker, "w", "here", value, "cpu", value, value, 0)
            yield _set(f"worker's host: {kind}", worker, "w", value, 1, value, 1.0, 1.0, value)
    lease = "INSERT INTO hpo_leases VALUES (2, 1, ?, ?, ?)"
    for kind, value in NUMBERS.items():
        if value is not None:
            running: tuple[str, tuple[Any, ...]] = ("UPDATE trials SET state = 'RUNNING' WHERE trial_id = 2", ())
            yield Damage(f"lease: {kind}", (running, (lease, (value, "w", value))))


def _names() -> Iterator[Damage]:
    """Yield studies' names and keys that are no such things."""
    for kind in TEXTS:
        yield _attribute("study_user", STUDY, "hpo:key", kind, TEXTS[kind])
    for kind, text in {"up": "/../../../victim", "root": "/", "dots": "..", "nul": "\0", "long": "k" * 300}.items():
        yield _attribute("study_user", STUDY, "hpo:key", kind, json.dumps(text))
    for kind, name in {"script": SCRIPT, "empty": "", "escape": "\x1b[31m", "long": "n" * 500}.items():
        yield _set(f"another study's name: {kind}", "UPDATE studies SET study_name = ? WHERE study_id = 3", name)
    for name in ("../../victim", "/tmp/victim", "..", "a/../../../victim"):
        yield _set(f"another study's name: {name}", "UPDATE studies SET study_name = ? WHERE study_id = 3", name)


def list_damage(healthy: Path) -> list[Damage]:
    """List all damage that is tried on a copy of the healthy database."""
    return [*_attributes(), *_inside(healthy), *_rows(), *_names()]


# Damage whose text is used as a path.
PATHS = ("hpo:key", "another study's name")
