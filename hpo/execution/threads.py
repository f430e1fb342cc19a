"""Threads of a study's workers: chosen once and stored, for sums of floats depend on them."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable

import numpy as np

from hpo.config.model_size import count_dense_parameters, resolve_width
from hpo.study import Definition, Study
from hpo.utils.home import cores

__all__ = ["THREADS", "choose_threads"]

log = logging.getLogger("hpo.study")
DENSE = ("mlp", "resnet_tabular", "autoencoder")
SMALL = 30_000_000  # products of a layer's inputs and weights in a step, which one core does in about 3 ms
PROBES = 64  # configurations that stand for a space
THREADS = "hpo:threads"  # a study's user attribute
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def choose_threads(study: Study, given: int | None, default: Callable[[], int]) -> int:
    """Return the number of threads of each of a study's workers: that of the first, unless another is asked for.

    So a trial's result does not depend on who else was alive when its worker began. The first call for a study stores
    what it returns.

    Args:
        study: the study.
        given: the number that an option asks for; without one, that of `OMP_NUM_THREADS` or `MKL_NUM_THREADS` counts.
        default: called for the number of a study that has none yet, where nothing asks for one, and whose models are
            large enough to gain by more than one.
    """
    asked, source = (given, "--cpus") if given else _environment_threads()
    stored = _stored_threads(study)
    if stored is None:
        chosen = asked or (1 if _trains_small_models(study.definition) else default())
        if study.storage.update_study(study.id, {THREADS: None}, {THREADS: chosen}):
            return chosen
        stored = _stored_threads(study) or chosen  # another worker was faster
    if asked and asked != stored:
        log.warning(
            "study %s: its workers have %d threads, %s asks for %d here, so results may differ in the last digits",
            study.name, stored, source, asked,
        )  # fmt: skip
    elif not asked and stored > cores():
        log.warning(
            "study %s: its workers have %d threads, and this machine has %d cores, so it trains slower here",
            study.name, stored, cores(),
        )  # fmt: skip
    return asked or stored


def _trains_small_models(definition: Definition) -> bool:
    """Return whether one thread is as fast as several for all models of a study, as far as their sizes are known.

    Where other programs want the cores, it is much faster.
    """
    shape = definition.dataset.shape
    if shape is None or not definition.configured or definition.learned or definition.evaluation is not None:
        return False
    space = definition.space
    drawn = [np.random.default_rng(number).random(len(space.varied)).tolist() for number in range(PROBES)]
    configs = [definition.config(space.values(space.draw(place))) for place in drawn]
    if any(config.model not in DENSE for config in configs):
        return False
    outputs = max(1, len(definition.dataset.output_names))
    return all(
        config.batch_size * count_dense_parameters(resolve_width(config, shape, outputs), math.prod(shape), outputs)
        <= SMALL
        for config in configs
    )


def _environment_threads() -> tuple[int | None, str]:
    """Return the number that the environment asks for, and the variable's name."""
    for name in VARIABLES:
        value = os.environ.get(name, "").partition(",")[0].strip()  # OpenMP takes one for each level of nesting
        if value.isdecimal() and int(value) > 0:
            return int(value), name
    return None, ""


def _stored_threads(study: Study) -> int | None:
    stored = study.storage.get_study_user_attrs(study.id).get(THREADS)
    return stored if isinstance(stored, int) and not isinstance(stored, bool) and 0 < stored <= 4096 else None
