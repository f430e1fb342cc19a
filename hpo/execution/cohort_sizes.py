"""Choice of the cohort sizes of a worker: as asked, or as a measurement and a model of the sampler say."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from optuna.trial import TrialState

from hpo.config import registry
from hpo.config.cohort_key import is_measured
from hpo.config.trial_config import TrialConfig
from hpo.execution.cohort_claims import CohortClaimer, CohortSize
from hpo.execution.study_callback import RunningTrial
from hpo.execution.trial_errors import INFRASTRUCTURE_ERRORS
from hpo.execution.worker_context import WorkerContext
from hpo.storage.leased_storage import ClaimOffer
from hpo.study.asking_cost import asking_cost, choose_at_once, most_at_once
from hpo.study.samplers import count_startup_trials, generation_size
from hpo.training.cohort_size import PROBES, count_fitting, measure_cohort_size, measure_speeds
from hpo.training.data_cache import DataCache
from hpo.utils.text import first_line

__all__ = ["CohortSizes"]

T = TypeVar("T")
log = logging.getLogger("hpo.execution.worker")
MAX_COHORT = {"cpu": 256}  # trials, however small, by the type of the device; others take what fits in their memory
MOST = 4096  # of a cohort on any device: each trial has a lease that is renewed
LOOPS = 16  # trials that one call of a training loop of the user's own stacks: its steps cannot be measured
ALONE = CohortSize(1)


class CohortSizes:
    """Chooser of the cohort sizes of one worker.

    Args:
        context: of the worker.
        data: the study's data set, on the device.
        claimer: of further trials.
        stackable: whether a configuration's model can be stacked.

    Attributes:
        fits: models that each trial trains at once.
    """

    def __init__(
        self,
        context: WorkerContext,
        data: DataCache,
        claimer: CohortClaimer,
        stackable: Callable[[TrialConfig], bool],
    ) -> None:
        self._context, self._data, self._claimer, self._stackable = context, data, claimer, stackable
        self._study = context.study
        spec = self._study.definition.sampler
        self._startup = count_startup_trials(spec.name, spec.options)
        self._free = generation_size(spec.name, spec.options, len(self._study.space.varied))
        self._measured: dict[int, int] = {}
        self._fitting: int | None = None
        self._speeds: Mapping[int, float] | None = None
        self._said: set[str] = set()
        self.fits = 1

    @property
    def _largest(self) -> int:
        return MAX_COHORT.get(self._data.device.type, MOST)

    def choose(self, first: RunningTrial) -> CohortSize:
        """Return the size of the cohort of a trial."""
        asked = self._context.options.cohort
        fixed = self._study.definition.fixed
        if fixed and is_measured(first.config):
            mixed = asked is not None  # a size that was asked for is filled with any trials
            if not self._claimer.has_companions(first.claim, first.config, mixed=mixed):
                return ALONE  # which needs no check
        if not self._stackable(first.config):
            return ALONE
        if asked is not None:
            return CohortSize(asked, lambda _: asked - 1)
        if first.claim.taken_over:
            return CohortSize(self._trials(self._count_fitting(first.config)))  # as they were trained before
        if fixed:
            return CohortSize(self._measure_fixed(first), mixed=False)
        return self._choose_adaptive(first.config)

    # Trials whose parameters are known.

    def _measure_fixed(self, first: RunningTrial) -> int:
        """Return how many trials the device trains efficiently, measured once for each kind of model."""
        if registry.models.get(first.config.model).loop:
            return LOOPS
        like = self._claimer.like(first.config)
        if like not in self._measured:
            configs = self._claimer.candidate_configs(first.claim, first.config)
            most = min(len(configs), self._trials(self._largest))
            size = self._try(lambda: self._measure(configs, first.config, most), 1)
            self._measured[like] = size
            number = "one at a time" if size == 1 else f"up to {size} at once"
            self._say(f"trains trials like trial {first.claim.number} {number}, by measurement")
        return self._measured[like]

    def _measure(self, configs: Sequence[TrialConfig], first: TrialConfig, most: int) -> int:
        """Measure how many trials to train at once; each fit of a trial counts as a model of its own."""
        models = [fit for config in configs for fit in self._fit_configs(config)]
        return self._trials(measure_cohort_size(models, self._data.get(first), most * self.fits))

    def _fit_configs(self, config: TrialConfig) -> list[TrialConfig]:
        if self.fits == 1:
            return [config]
        return [config.model_copy(update={"seed": seed}) for seed in range(self.fits)]

    def _trials(self, models: int) -> int:
        """Return how many trials so many models are."""
        return max(1, models // self.fits)

    # Trials that a sampler is asked for.

    def _choose_adaptive(self, first: TrialConfig) -> CohortSize:
        """Ask for all start-up trials at once, and for later ones as the measured speeds and the sampler's cost say."""
        budget, states = self._study.budget.trials, (TrialState.COMPLETE, TrialState.PRUNED)
        # As samplers see them, for which a paused trial may be a result.
        learns = len(self._study.optuna_study._get_trials(deepcopy=False, states=states)) >= self._startup
        fitting = self._trials(self._count_fitting(first))
        speeds = self._measure_speeds(first) if learns else {1: 1.0}

        def ask(offer: ClaimOffer) -> int:
            if (left := self._startup - (budget - offer.new)) > 0:
                more = min(left, math.ceil(self._startup / offer.workers) - 1)
                self._say(f"asks for {1 + more} of {self._startup} start-up trials at once: they are random anyway")
                return more
            # Before it has as many results it draws at random: of such trials there are to be no more than need be.
            return self._choose_at_once(speeds, offer.workers) - 1 if learns else 0

        return CohortSize(fitting, ask)

    def _choose_at_once(self, speeds: Mapping[int, float], workers: int) -> int:
        budget = self._study.budget.trials
        at_once = choose_at_once(speeds, budget, workers, self._free)
        measured = ", ".join(f"{size} at once {speed:.2f} times" for size, speed in speeds.items() if size > 1)
        cost = f"which costs it about {asking_cost(at_once, workers, self._free):g} of {budget} trials"
        self._say(
            f"asks the sampler for {f'{at_once} trials at once, {cost}' if at_once > 1 else '1 trial at a time'}; "
            f"measured speed against one at a time: {measured or 'not worth a measurement'}"
        )
        return at_once

    def _draw(self, count: int) -> list[TrialConfig]:
        """Return so many configurations drawn at random from the space, without those that cannot be stacked."""
        study = self._study
        rng = np.random.default_rng(study.definition.seed)
        points = (rng.random(len(study.space.varied)).tolist() for _ in range(count))
        drawn = (study.definition.config(study.space.values(study.space.draw(point))) for point in points)
        configs = (study.definition.resplit_config(config, number) for number, config in enumerate(drawn))
        return [config for config in configs if self._stackable(config)]

    def _count_fitting(self, first: TrialConfig) -> int:
        """Return how many random configurations fit into the device's memory."""
        if registry.models.get(first.model).loop:
            return LOOPS
        if self._fitting is None:
            found = self._try(lambda: count_fitting([first, *self._draw(PROBES)], self._data.get(first)), 1)
            self._fitting = max(1, min(found, self._largest))
        return self._fitting

    def _measure_speeds(self, first: TrialConfig) -> Mapping[int, float]:
        """Return the speeds of cohorts of random configurations against one at a time, by their size."""
        if registry.models.get(first.model).loop:
            return {1: 1.0}  # its own steps cannot be measured
        if self._speeds is None:
            study = self._study
            workers = max(1, sum(not worker.gone for worker in study.storage.read_workers(study.id)))
            fitting = self._trials(self._count_fitting(first))
            most = min(most_at_once(study.budget.trials, workers, self._free), fitting)
            share = study.remaining() // workers
            alone = {1: 1.0}

            def measure() -> dict[int, float]:
                draws = [self._fit_configs(config) for config in self._draw(2 * max(PROBES, most))]
                return measure_speeds(draws, self._data.get(first), most, share)

            self._speeds = self._try(measure, alone) if most > 1 else alone
        return self._speeds

    # Both.

    def _try(self, measure: Callable[[], T], otherwise: T) -> T:
        """Return what a measurement finds; after an error, which training will raise again, something else."""
        try:
            with self._context.work.measure("training"):
                return measure()
        except INFRASTRUCTURE_ERRORS:
            raise
        except Exception as error:
            why = first_line(error)
            log.warning("the size of cohorts could not be measured, so trials are trained one by one: %s", why)
            return otherwise

    def _say(self, line: str) -> None:
        """Log a line, once."""
        if line not in self._said:
            self._said.add(line)
            log.info("%s", line)
