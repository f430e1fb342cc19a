"""Corpus of searches of other tools: what comes out of each file, and that a loop loses nothing."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo.config import registry
from hpo.space.domains import Choices as OurChoices
from hpo.space.domains import Constant as OurConstant
from hpo.space.domains import Domain
from hpo.space.domains import Range as OurRange
from hpo.study.definition import Definition
from hpo.study.foreign.readers import read_search
from hpo.study.foreign.search import Choices, Constant, ForeignDomain
from hpo.study.input.study_file import parse_definition
from tests.imports.cases import CASES, LOOP, Case

EACH_CASE = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@EACH_CASE
def test_a_file_gives_its_study_or_its_refusal(case: Case) -> None:
    expected = case.expected if case.expected.exists() else case.refusal
    assert case.expected.exists() != case.refusal.exists()
    assert case.text() == expected.read_text(encoding="utf-8")


@pytest.fixture
def registered() -> Iterator[None]:
    """Forget what a loop has registered."""
    models, metrics = dict(registry.models._entries), dict(registry.metrics._entries)
    yield
    registry.models._entries.clear()
    registry.models._entries.update(models)
    registry.metrics._entries.clear()
    registry.metrics._entries.update(metrics)


@EACH_CASE
@pytest.mark.usefixtures("registered")
def test_a_loop_has_every_parameter_with_its_values(case: Case) -> None:
    scope, definition = _load(case)
    paths = scope.get("PATHS") or {each.name: each.path for each in read_search(case.file).parameters}
    searched = {name: domains[0] for name, domains in definition.space.domains.items()}
    defaults = {name: info.default for name, info in scope["Parameters"].model_fields.items()}
    found = sorted(map(tuple, paths.values()))
    assert found == sorted(each.path for each in read_search(case.file).parameters)
    for theirs in read_search(case.file).parameters:
        names = [name for name, path in paths.items() if tuple(path) == theirs.path]
        assert any(
            _is_same(theirs.domain, searched.get(name), defaults.get(name), encoded=name in scope.get("ENCODED", ()))
            for name in names
        ), theirs.name


@EACH_CASE
@pytest.mark.usefixtures("registered")
def test_a_configuration_goes_both_ways(case: Case) -> None:
    scope, definition = _load(case)
    if "as_written" not in scope:
        return
    import hpo

    config = hpo.TrialConfig.of({"model": LOOP}, definition.declarations)
    written = scope["as_written"](config)
    assert all(getattr(config, name) == value for name, value in scope["as_parameters"](written).items())


def _load(case: Case) -> tuple[dict[str, Any], Definition]:
    """Run the loop's file, and parse its study file."""
    scope: dict[str, Any] = {"__name__": LOOP}
    exec(compile(case.loop.loop, f"{LOOP}.py", "exec"), scope)
    table = tomllib.loads(case.loop.toml(case.file.name))
    return scope, parse_definition(table, "corpus", Path())[1]


def _is_same(theirs: ForeignDomain, ours: Domain | None, default: Any, *, encoded: bool) -> bool:
    """Return whether a domain of ours has the values of theirs."""
    if isinstance(theirs, Constant):
        value = ours.value if isinstance(ours, OurConstant) else default
        return bool(encoded or ours is not None or value == theirs.value)
    if isinstance(theirs, Choices):
        count = len(ours.values) if isinstance(ours, OurChoices) else 1
        return encoded or count == len(theirs.values)
    if not isinstance(ours, OurRange):
        return theirs.low == theirs.high
    return ours.low == theirs.low and ours.log == theirs.log and ours.high <= theirs.high
