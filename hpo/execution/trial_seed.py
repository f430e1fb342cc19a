"""Seeds of trials of objective functions."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
from typing_extensions import override

from hpo.config.trial_config import TrialConfig
from hpo.study.attributes import TRIAL_SEED

__all__ = ["SEEDLESS", "SeededAttributes", "derive_seed", "seed"]

SEEDLESS = (
    "its objective function takes no seed, so fresh seeds would change nothing; let it begin with hpo.seed(trial), or "
    'seed itself with trial.user_attrs["hpo_seed"]'
)


class SeededAttributes(dict[str, Any]):
    """User attributes of a running trial with its seed among them, which tell when that is read."""

    def __init__(self, attrs: Mapping[str, Any], number: int, asked: Callable[[], object]) -> None:
        super().__init__({**attrs, TRIAL_SEED: number})
        self._asked = asked

    @override
    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    @override
    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute, or the default."""
        self._note(key)
        return super().get(key, default)

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # a copy is a plain one

    def _note(self, key: str) -> None:
        if key == TRIAL_SEED:
            self._asked()


def derive_seed(study_seed: int, number: int) -> int:
    """Return the seed of a trial in a search: 0 to 2**32 - 1, another one for each trial and each study's seed."""
    return int(np.random.SeedSequence([study_seed, number]).generate_state(1)[0])


def find_loop_seed(trial: object) -> int | None:
    """Return the seed of initial weights that a training loop's trial has for this fit; None of other trials."""
    config = getattr(trial, "config", None)
    return config.seed_of_init if isinstance(config, TrialConfig) else None


def seed(trial: optuna.trial.BaseTrial) -> int:
    """Seed the generators of random numbers for a trial, and return its seed.

    An objective function that begins with it can be evaluated from fresh seeds: `hpo evaluate NAME --seeds 5` calls it
    again with the parameters of the best trials and other seeds.

    ```python
    def objective(trial):
        seed = hpo.seed(trial)
        split = sklearn.model_selection.ShuffleSplit(random_state=seed)
        ...
    ```

    It seeds the global generators of Python's `random`, of NumPy, and of torch on all devices. A function that wants
    none of that reads the same number from `trial.user_attrs["hpo_seed"]`, which a worker puts there.

    Returns:
        The seed, 0 to 2**32 - 1: in a search it follows from the study's seed and the trial's number, in an evaluation
        it is one that the study has not used. Without a worker, as under `study.optimize`, the study's seed is 0. Of a
        training loop's trial it is the seed of its initial weights, another one for each fit.
    """
    number = find_loop_seed(trial)
    if number is None:
        number = trial.user_attrs.get(TRIAL_SEED)
    if not isinstance(number, int):
        number = derive_seed(0, trial.number)
        trial.set_user_attr(TRIAL_SEED, number)
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002: the global generator is the one that libraries use
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(number)
    return number
