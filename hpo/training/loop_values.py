"""Values that a training loop of the user's own reports and returns, as metrics by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpo.errors import RunError
from hpo.training.member import Metrics
from hpo.training.numbers import to_number
from hpo.utils.text import shorten

__all__ = ["read_report", "read_returned"]

LARGEST_STEP = 2**31 - 1  # as databases store it


def read_report(
    loop: str, objective: str, value: object, step: object, metrics: Mapping[str, object]
) -> tuple[Metrics, int | None]:
    """Return the metrics of a report, and its step, where it has one.

    Args:
        loop: name of the loop, for errors.
        objective: the study's first objective, whose value may come without a name.
        value, step, metrics: see `hpo.Trial.report`. `report(value=…, step=…)` is Optuna's, too.

    Raises:
        RunError: one of them is no number, or the first objective comes twice.
    """
    given, where = dict(metrics), f"objective '{loop}': trial.report"
    if step is None:
        step = given.pop("epoch", None)
    elif "epoch" in given:
        raise RunError(f"{where}(…, step, epoch=…): the step is the epoch; give one of them")
    elif value is None and objective != "value":
        value = given.pop("value", None)
    if value is not None:
        if objective in given:
            raise RunError(f"{where}(value, …, {objective}=…): {objective} is the value; give it once")
        given = {objective: value, **given}
    numbers = {name: to_number(each, f"{where}({name}=…)") for name, each in given.items()}
    return numbers, None if step is None else _read_step(f"{where}(…, step)", step)


def _read_step(where: str, step: object) -> int:
    number = to_number(step, where)
    if not number.is_integer() or not 0 <= number <= LARGEST_STEP:
        raise RunError(f"{where}: step = {shorten(step)}: must be a whole number from 0 to {LARGEST_STEP}")
    return int(number)


def read_returned(loop: str, returned: object, objectives: Sequence[str]) -> Metrics:
    """Return the metrics that a loop returned: one number for the first objective, one for each, or any by name.

    Raises:
        RunError: it is nothing of that kind.
    """
    where = f"objective '{loop}'"
    if isinstance(returned, Mapping):
        return {str(name): to_number(value, f"{where}: the returned {name}") for name, value in returned.items()}
    if not isinstance(returned, list | tuple):
        return {objectives[0]: to_number(returned, f"{where}: the returned value")}
    if len(returned) != len(objectives):
        wanted = f"{len(objectives)} {'objective' if len(objectives) == 1 else 'objectives'}"
        names = ", ".join(objectives)
        raise RunError(f"{where}: it returned {len(returned)} values, and the study has {wanted}: {names}")
    pairs = zip(objectives, returned, strict=True)
    return {name: to_number(value, f"{where}: the returned {name}") for name, value in pairs}
