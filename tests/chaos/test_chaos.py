"""The short form of what `make chaos` does for ten minutes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.harness import ASHA, Case, run, undisturbed
from tests.study.helpers import sqlite_url

OWN: dict[str, Any] = {"own_model": True, "samples": 1000}  # whose epochs take as long as those of others
SHORT = Case("random", "none", 1, workers=3, trials=10, epochs=16, samples=3000, kills=6, stops=1, limit=240, least=3)


@pytest.mark.timeout(600)
def test_every_trial_is_what_it_would_have_been_undisturbed(tmp_path: Path) -> None:
    case = replace(SHORT, **OWN)
    assert run(case, sqlite_url(tmp_path), tmp_path, print) == undisturbed(case, tmp_path / "undisturbed")


@pytest.mark.timeout(600)
def test_an_adaptive_study_with_pruning_is_whole(tmp_path: Path, postgres_url: str) -> None:
    run(replace(SHORT, sampler="tpe", pruner="median", seed=2), postgres_url, tmp_path, print)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("sampler", "pruner"), [("random", "none"), ("tpe", ASHA)], ids=["random", "asha"])
def test_cohorts_of_an_own_model_lose_nothing(sampler: str, pruner: str | dict[str, Any], tmp_path: Path) -> None:
    """Paused trials go on from their checkpoints, as do those of killed workers."""
    case = replace(SHORT, sampler=sampler, pruner=pruner, seed=3, trials=16, cohorts=(4, 1), **OWN)
    run(case, sqlite_url(tmp_path), tmp_path, print)
