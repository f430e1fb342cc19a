"""Corpus of searches of other tools: what comes out of each file, and that a loop loses nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.config.values import plain_value
from hpo.space import Space
from hpo.space.domains import Range as OurRange
from hpo.study.definition import constant_parameters
from hpo.study.foreign.imported import comment
from hpo.study.foreign.readers import read_search
from hpo.study.foreign.search import Choices, Computed, Constant, ForeignDomain
from hpo.study.input.study_file import parse_definition
from tests.helpers import ROOT, run_hpo, train_here
from tests.imports.cases import CASES, LOOP, Case

EACH_CASE = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@pytest.fixture(autouse=True)
def _no_models_but_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what other tests have registered: a model of that name could be what a file means."""
    ours = {name: entry for name, entry in registry.models._entries.items() if entry.builtin}
    monkeypatch.setattr(registry.models, "_entries", ours)


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
    scope: dict[str, Any] = {"__name__": LOOP}
    exec(compile(case.loop.loop, f"{LOOP}.py", "exec"), scope)
    space = parse_definition(tomllib.loads(case.loop.toml(case.file.name)), "corpus", Path())[1].space
    found = read_search(case.file).parameters
    computed = [each.domain.expression for each in found if isinstance(each.domain, Computed)]
    assert all(comment(expression)[2:] in case.loop.loop for expression in computed)
    theirs = [each for each in found if not isinstance(each.domain, Computed)]
    paths = scope.get("PATHS") or {each.name: each.path for each in theirs}
    known = {each.path for each in theirs}  # the others end with the key of a table's own value
    paths = {name: path if (path := tuple(place)) in known else path[:-1] for name, place in paths.items()}
    assert sorted(paths.values()) == sorted(each.path for each in theirs)
    config = TrialConfig(**{"model": LOOP, **constant_parameters(space)})
    for each in theirs:
        names = [name for name, path in paths.items() if path == each.path]
        assert any(_same(each.domain, space, config, name, scope) for name in names), each.name
    if "as_written" in scope:  # and back again
        parameters = scope["as_parameters"](scope["as_written"](config))
        assert all(getattr(config, name) == value for name, value in parameters.items())


def _same(theirs: ForeignDomain, space: Space, config: TrialConfig, name: str, scope: Mapping[str, Any]) -> bool:
    """Return whether the loop's parameter has the values of theirs."""
    ours = space.domains[name][0] if name in space.domains else None

    def plain(value: Any) -> Any:
        return json.dumps(value) if name in scope.get("ENCODED", ()) else plain_value(value)

    if isinstance(theirs, Constant):
        return bool(plain_value(getattr(config, name)) == plain(theirs.value))
    if isinstance(theirs, Choices):
        values = ours.points() if ours is not None else [plain_value(getattr(config, name))]
        return list(values) == list(map(plain, theirs.values))
    assert isinstance(ours, OurRange)
    return (ours.low, ours.high, ours.log, ours.step) == (theirs.low, theirs.high, theirs.log, theirs.step)


@pytest.mark.integration
def test_the_types_of_all_loops_are_right(tmp_path: Path) -> None:
    files = [tmp_path / f"loop_{number}.py" for number in range(len(CASES))]
    for file, case in zip(files, CASES, strict=True):
        file.write_text(case.loop.loop, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", *files]  # strictly, as this project's own files, whose cache it uses
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# Ten lines of Q-learning on a corridor, at whose end is the reward.
FILLED = """
    values = torch.zeros(6, 2)
    random = torch.Generator().manual_seed(0)
    for _ in trial.epochs(model=torch.nn.Linear(1, 1)):
        place, reward = 0, 0.0
        for step in range(config.batch_size):
            greedy = torch.rand(1, generator=random).item() > written["dqn"]["epsilon"]
            action = int(values[place].argmax()) if greedy else int(torch.randint(2, (1,), generator=random))
            after, won = (place - 1, place + 1)[action] % 6, float(place == 4 and action == 1)
            goal = won + written["dqn"]["gamma"] * values[after].max() * (1 - won)
            values[place, action] += 10 * written["lr"] * (goal - values[place, action])
            place, reward = 0 if won else after, reward + won
        trial.report(eval_mean_reward=reward)
"""


@pytest.mark.integration
def test_a_loop_that_is_filled_in_is_launched(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "wandb" / "dqn.yaml", tmp_path / "dqn.yaml")
    done = run_hpo("import", "dqn.yaml", "--loop", "corridor.py", "-o", "corridor.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dqn.epsilon -> dqn_epsilon" in done.stderr.splitlines()
    assert "8 of 8 parameters are kept" in done.stderr.splitlines()
    assert done.stderr.splitlines()[-1] == (
        "write the training in corridor.py, and launch it with:  hpo launch ./corridor.toml --import corridor"
    )
    loop = tmp_path / "corridor.py"
    before, _, _ = loop.read_text(encoding="utf-8").partition("    # Build what is trained here")
    loop.write_text(before.replace("import hpo\n", "import torch\nimport hpo\n", 1) + FILLED, encoding="utf-8")
    train_here("./corridor.toml", "--import", "corridor", cwd=tmp_path)
    shown = run_hpo("trials", "corridor", "--import", "corridor", "--format", "json", cwd=tmp_path)
    trials = json.loads(shown.stdout)
    assert len(trials) == 4
    assert {"COMPLETE"} <= {each["state"] for each in trials} <= {"COMPLETE", "PRUNED"}
    assert all(0.01 <= each["dqn_epsilon"] <= 0.3 for each in trials)
