"""Attributes that torch-hpo stores with trials, whose names an objective function or a training loop should leave."""

from __future__ import annotations

import functools
import logging

__all__ = ["OWN_ATTRIBUTES", "warn_of_own_name"]

log = logging.getLogger("hpo.execution.worker")
# `standard_error` is not among them: an objective function may set it.
OWN_ATTRIBUTES = frozenset(
    (
        *("attempt", "worker", "deaths", "failure", "message", "hpo_seed", "cohort", "train_seconds"),
        *("parameter_count", "best_epoch", "last_epoch", "returned", "value_from", "width", "widths"),
        *("fits", "fit_returns", "raced", "stage_epochs", "split_number"),
    )
)


@functools.cache  # once in a worker, whose trials all set it
def warn_of_own_name(name: str) -> None:
    """Say of an attribute that user code sets if it is one of ours, which takes its place or is lost by it."""
    if name in OWN_ATTRIBUTES:
        log.warning(
            "attribute %r: torch-hpo stores its own value under this name, and only one of them is kept; choose "
            "another name in set_user_attr",
            name,
        )
