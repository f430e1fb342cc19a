"""Lines about workers that fail while others run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpo.execution.backends import live_progress
from hpo.execution.backends.live_progress import watch_study
from tests.execution.backends.test_contract import make
from tests.study.helpers import sqlite_url


class Clock(SimpleNamespace):
    """A clock that only pauses move."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Failed:
    """A worker that fails at a time."""

    clock: Clock
    at: float

    @property
    def alive(self) -> bool:
        return self.clock.now < self.at

    @property
    def failure(self) -> str | None:
        return f"failed at {self.at}"

    def stop(self) -> None:
        pass


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ((0.6, 0.9), []),  # all for one reason, which the caller says
        ((0.6, 9.0), ["failed at 0.5; 1 more at work", "failed at 0.6; 1 more at work"]),
    ],
)
def test_a_failure_is_said_meanwhile_only_where_others_go_on(
    others: tuple[float, float], said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    clock = Clock()
    monkeypatch.setattr(live_progress, "time", clock)
    monkeypatch.setattr(live_progress, "pause", clock.pause)
    study = make(sqlite_url(tmp_path), tmp_path, "failing", 1)
    failures = watch_study(study, [Failed(clock, 0.5), *(Failed(clock, at) for at in others)], lambda: False)
    assert failures == ["failed at 0.5", *(f"failed at {at}" for at in others)]
    assert [line for line in capfd.readouterr().err.splitlines() if "at work" in line] == said
