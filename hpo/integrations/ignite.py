"""Handler for PyTorch Ignite's engines."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from hpo.errors import CheckpointError, RunError
from hpo.integrations.adapter import (
    AnyTrial,
    adapt_trial,
    import_framework,
    read_generators,
    select_numbers,
    write_generators,
)
from hpo.utils.text import first_line

__all__ = ["TrialHandler"]

log = logging.getLogger("hpo.integrations")
WHERE = "hpo.integrations.ignite.TrialHandler"


class TrialHandler:
    """Handler that reports, prunes and checkpoints a trial, after each evaluation.

    ```python
    def objective(trial):
        handler = TrialHandler(trial, monitor="accuracy")
        handler.attach(trainer, evaluator, {"model": model, "optimizer": optimizer})
        trainer.run(training, max_epochs=10)
        return handler.metrics["accuracy"]
    ```

    The evaluator is to run after whole epochs; its other runs are passed over. The trial of an objective function
    reports `monitor` at the trainer's epoch, from 1, and is pruned by `optuna.TrialPruned`. The trial of a training
    loop reports all metrics as those of an epoch, and terminates the trainer.

    Args:
        trial: `optuna.Trial` or `hpo.Trial`.
        monitor: the metric that an objective function's trial reports, as it is attached to the evaluator; None for
            none.

    Attributes:
        metrics: of the last evaluation, those of an earlier attempt too.
    """

    def __init__(self, trial: AnyTrial, monitor: str | None = None) -> None:
        self.metrics: dict[str, float] = {}
        self._adapter = adapt_trial(trial, monitor, WHERE)
        self._epoch = 0  # the last that was reported
        self._finished = False
        self._trainer: Any = None
        self._parts: dict[str, Any] = {}

    def attach(self, trainer: Any, evaluator: Any, parts: Mapping[str, Any]) -> None:
        """Attach the handler to engines, and load what the last attempt saved, so that `trainer.run` goes on.

        Args:
            trainer: the engine that trains.
            evaluator: the engine that a handler of the trainer runs after an epoch.
            parts: what a checkpoint holds beside the trainer, by name: whatever has `state_dict` and
                `load_state_dict`.

        Raises:
            CheckpointError: a part cannot load its state.
            RequestError: Ignite is not installed.
            RunError: while training, if the evaluator does not have the metric.
        """
        engine = import_framework("ignite.engine", "ignite")
        self._trainer, self._parts = trainer, dict(parts)
        state = self._adapter.load()
        if state is not None:
            self._load(state)
        trainer.add_event_handler(engine.Events.STARTED, self._begin)
        evaluator.add_event_handler(engine.Events.COMPLETED, self._end_epoch)

    def _load(self, state: Mapping[str, Any]) -> None:
        if sorted(state["parts"]) != sorted(self._parts):
            raise CheckpointError(f"{WHERE}: the checkpoint holds {sorted(state['parts'])}, not {sorted(self._parts)}")
        for name, part in self._parts.items():
            try:
                part.load_state_dict(state["parts"][name])
            except Exception as error:  # a part of the user's can raise anything
                raise CheckpointError(f"{WHERE}: '{name}' does not fit its checkpoint: {first_line(error)}") from error
        self.metrics, self._epoch, self._finished = state["metrics"], state["epoch"], state["finished"]
        write_generators(state["generators"])
        if self._epoch and not self._finished:
            self._trainer.load_state_dict(state["trainer"])

    def _begin(self, trainer: Any) -> None:
        """Refuse distributed training, and end at once where the last attempt had trained to the end.

        Raises:
            RunError: the trainer is one of several processes.
        """
        processes = import_framework("ignite.distributed", "ignite").get_world_size()
        if processes > 1:
            raise RunError(f"{WHERE}: {processes} processes train one trial; start a worker for each device")
        if self._finished:
            trainer.terminate()
        elif not self._epoch and not self._adapter.per_epoch:
            self._save()  # so that reports before the first checkpoint are not kept

    def _end_epoch(self, evaluator: Any) -> None:
        """Report the metrics of the evaluator after a whole epoch, once, and write a checkpoint."""
        state = self._trainer.state
        if state.epoch == self._epoch and state.max_epochs is not None and state.epoch < state.max_epochs:
            log.warning(
                "%s: the evaluator has run again in epoch %d, and what counts is its first run; give the validation "
                "data an evaluator of their own",
                WHERE,
                state.epoch,
            )
        if state.epoch <= self._epoch or (state.epoch_length and state.iteration % state.epoch_length):
            return
        self._epoch = state.epoch
        self.metrics = select_numbers(evaluator.state.metrics)
        self._adapter.report(self.metrics, state.epoch)
        if self._adapter.save_due():
            self._save()
        if self._adapter.should_stop():
            self._trainer.terminate()

    def _save(self) -> None:
        state = self._trainer.state
        self._adapter.save(
            {
                "trainer": dict(self._trainer.state_dict()),
                "parts": {name: part.state_dict() for name, part in self._parts.items()},
                "metrics": self.metrics,
                "epoch": self._epoch,
                "finished": state.max_epochs is not None and self._epoch >= state.max_epochs,
                "generators": read_generators(),
            }
        )
