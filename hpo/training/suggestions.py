"""Suggestions for a training loop of the user's own that asks for parameters as Optuna's objective functions do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig
from hpo.errors import RunError
from hpo.utils.text import shorten

__all__ = ["StudyTrial", "Suggestions", "TrialLink"]

log = logging.getLogger("hpo.training")


class StudyTrial(Protocol):
    """Optuna's trial, as far as a training loop has to do with it."""

    @property
    def number(self) -> int:
        """Its number."""

    @property
    def user_attrs(self) -> dict[str, Any]:
        """Its attributes."""

    @property
    def datetime_start(self) -> datetime | None:
        """When it began."""

    def set_user_attr(self, key: str, value: Any) -> None:
        """Store an attribute."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """Suggest a real number."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """Suggest a whole number."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest a choice."""


@dataclass(frozen=True)
class TrialLink:
    """Link of a trial in training to its study.

    Attributes:
        trial: Optuna's trial; None where no study records what the loop does.
        number: of the trial.
        answers: the parameters that the loop asked for as the trial was first trained, where it is trained again; None
            if the study's sampler is to be asked.
        source: whose answers they are, for errors.
        choose_sampler: makes the trial's own sampler the one that answers; those of its peers have been asked since.
    """

    trial: StudyTrial | None = None
    number: int = 0
    answers: Mapping[str, Value] | None = None
    source: str = "this configuration"
    choose_sampler: Callable[[], None] | None = None


class Suggestions:
    """Answers to a loop's `suggest_…`, each remembered.

    What the configuration has is answered from it: the study's own domain counts, as where it is asked for in a study
    file. Anything else is answered as it was when the trial was first trained, or else by the study's sampler.

    Args:
        config: the trial's configuration.
        link: its link to the study.

    Attributes:
        asked: parameters that are not the configuration's, with the values that the loop was given.
    """

    def __init__(self, config: TrialConfig, link: TrialLink) -> None:
        self.asked: dict[str, Any] = {}
        self._config = config
        self._configured = config.effective()
        self._link = link

    def number(self, kind: type[int] | type[float], name: str, low: float, high: float, **options: Any) -> Any:
        """Suggest a number: `options` are `step` and `log`, as Optuna takes them."""
        if name in self._configured:
            return self._check_number(kind, name, low, high)
        return self._ask(f"suggest_{kind.__name__}", name, low, high, **options)

    def choice(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of several values."""
        if name in self._configured:
            return self._check_choice(name, choices)
        return self._ask("suggest_categorical", name, choices)

    def _ask(self, method: str, name: str, *domain: Any, **options: Any) -> Any:
        link = self._link
        if name not in self.asked:
            if link.answers is not None:
                if name not in link.answers:
                    raise self._error(
                        method, name, f"{link.source} has no value of it; train it in a study whose sampler is asked"
                    )
                self.asked[name] = link.answers[name]
            elif link.trial is None:
                raise self._error(
                    method, name, "there is no study here whose sampler could be asked; declare it as a parameter"
                )
        if link.answers is None and link.trial is not None:  # each time, for Optuna tells what does not fit together
            if link.choose_sampler is not None:
                link.choose_sampler()
            self.asked[name] = getattr(link.trial, method)(name, *domain, **options)
        return self.asked[name]

    def _check_number(self, kind: type[int] | type[float], name: str, low: float, high: float) -> int | float:
        value = self._configured[name]
        method = f"suggest_{kind.__name__}"
        if isinstance(value, bool) or not isinstance(value, int | float) or kind(value) != value:
            raise self._error(method, name, f"the study gives it {shorten(value)}, which is no {kind.__name__}")
        if not low <= value <= high:
            log.warning(
                "trial.%s(%r, %s, %s): the study gives it %s, and the study's own domain counts",
                method, name, low, high, value,
            )  # fmt: skip
        return kind(value)

    def _check_choice(self, name: str, choices: Sequence[Any]) -> Any:
        value = self._configured[name]
        for choice in choices:
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return choice
        raise self._error(
            "suggest_categorical",
            name,
            f"the study gives it {shorten(value)}, which is none of {shorten(list(choices))}; give the study the same "
            "choices, or leave it to the loop",
        )

    def _error(self, method: str, name: str, why: str) -> RunError:
        return RunError(f"objective '{self._config.model}': trial.{method}({name!r}, …): {why}")
