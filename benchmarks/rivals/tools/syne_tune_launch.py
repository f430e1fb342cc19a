"""Syne Tune, as its first example: ASHA over processes that run `syne_tune_train.py`, one for each trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from syne_tune import StoppingCriterion, Tuner
from syne_tune.backend import LocalBackend
from syne_tune.config_space import choice, loguniform, randint
from syne_tune.optimizer.baselines import ASHA

from benchmarks.rivals.session import session


def config_space() -> dict[str, Any]:
    space = session.space
    choices = {name: choice(choices) for name, choices in space.choices.items()}
    integers = {name: randint(*bounds) for name, bounds in space.integers.items()}
    return {**choices, **integers, **{name: loguniform(*bounds) for name, bounds in space.rates.items()}}


if __name__ == "__main__":
    scheduler = ASHA(
        config_space(),
        metric="accuracy",
        time_attr="epoch",
        max_t=session.epochs,
        do_minimize=False,
        random_seed=session.seed,
    )
    backend = LocalBackend(entry_point=str(Path(__file__).with_name("syne_tune_train.py")))
    # It ends once more than that number have begun.
    limit = StoppingCriterion(max_wallclock_time=session.seconds, max_num_trials_started=session.trials - 1)
    Tuner(backend, scheduler, limit, n_workers=2, wait_trial_completion_when_stopping=True).run()
