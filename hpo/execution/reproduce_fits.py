"""Training of a trial's fits once more, to compare them with what was recorded of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from typing_extensions import override

from hpo.config import registry
from hpo.config.resampling import Fit
from hpo.config.trial_config import TrialConfig
from hpo.study import Study
from hpo.training.callbacks import Callback
from hpo.training.data_cache import DataCache
from hpo.training.fits import fit_config
from hpo.training.loop import train
from hpo.training.member import Member, Metrics
from hpo.training.settings import TrainSettings
from hpo.training.suggestions import TrialLink

__all__ = ["train_fits"]


class _Length(Callback):
    """Callback that ends each fit after as many epochs as it is to have."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = lengths

    @override
    def on_epoch(self, member: Member, metrics: Metrics) -> None:
        if len(member.history) >= self._lengths[member.number]:
            member.stop("completed")


def train_fits(
    study: Study, config: TrialConfig, lengths: Mapping[int, int], data: DataCache, link: TrialLink
) -> dict[int, list[Metrics]]:
    """Train fits of a trial together, as they were trained, and return their rows of metrics by the fits' numbers.

    Args:
        study: the trial's study.
        config: its configuration.
        lengths: epochs of each fit to train, by its number.
        data: the study's data set, on the device.
        link: what a loop of the user's own was given then.
    """
    definition = study.definition
    loop = bool(registry.models.get(config.model).loop)
    fits: list[Fit] = [fit for fit in definition.fits if fit.number in lengths]
    results = train(
        [fit_config(config, fit, loop=loop) for fit in fits],
        [data.get(fit.config(config), fit.division) for fit in fits],
        TrainSettings(
            monitor=definition.metrics[0],
            direction=definition.objectives[0].direction,
            objectives=[each.metric for each in definition.objectives],
            metrics=[registry.metrics.get(name) for name in definition.metrics],
            callbacks=[_Length([lengths[fit.number] for fit in fits])],
        ),
        links=[link] * len(fits),
    )
    return {fit.number: result.history for fit, result in zip(fits, results, strict=True)}
