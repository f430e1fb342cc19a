"""Callback for PyTorch Lightning, of the packages `lightning` and `pytorch_lightning`."""

from __future__ import annotations

import logging
from typing import Any

import torch

from hpo.errors import RunError
from hpo.integrations.adapter import (
    AnyTrial,
    adapt_trial,
    make_callback,
    read_generators,
    select_numbers,
    write_generators,
)

__all__ = ["TrialCallback"]

log = logging.getLogger("hpo.integrations")

BASES = ("lightning.pytorch.Callback", "pytorch_lightning.Callback")
WHERE = "hpo.integrations.lightning.TrialCallback"


class TrialCallback:
    """Callback of a Trainer that reports, prunes and checkpoints a trial.

    ```python
    def objective(trial):
        callback = TrialCallback(trial, monitor="val_loss")
        trainer = lightning.Trainer(max_epochs=10, callbacks=[callback])
        trainer.fit(Module(trial), datamodule, ckpt_path=callback.ckpt_path)
        return callback.metrics["val_loss"]
    ```

    The trial of an objective function reports `monitor` after each validation, and is pruned by `optuna.TrialPruned`.
    The step is the epoch, or the number of the validation, from 0, where an epoch has several. A study of several
    objectives takes no reports. The trial of a training loop reports all metrics of an epoch in which there was a
    validation, and ends by the trainer's `should_stop`. A worker's trial is checkpointed in its folder after epochs.

    Where several processes train one trial, started by torchrun or Slurm, the first gives its trial and the others
    None: the first reports, and all are pruned together. There are no checkpoints then.

    Args:
        trial: `optuna.Trial` or `hpo.Trial`.
        monitor: the metric that an objective function's trial reports; None for none.
        checkpoint: whether to write checkpoints.

    Attributes:
        metrics: of the last validation, those of an earlier attempt too.
        ckpt_path: the checkpoint to begin from, for `Trainer.fit`; None where there is none.

    Raises:
        RunError: in training, if the module does not log the metric.
    """

    def __new__(cls, *_: Any, **__: Any) -> TrialCallback:
        """Make an object that is also a callback of the framework's."""
        return make_callback(cls, BASES, "lightning")

    def __init__(self, trial: AnyTrial | None, monitor: str | None = None, *, checkpoint: bool = True) -> None:
        super().__init__()
        self.metrics: dict[str, float] = {}
        self.ckpt_path: str | None = None
        self._monitor = monitor
        self._adapter = adapt_trial(trial, monitor, WHERE)
        self._writes = checkpoint and self._adapter.folder is not None
        self._reports = 0
        self._validated = False
        self._at_validation: bool | None = None  # when the metric is there: None as long as it is not known
        self._generators: list[torch.Tensor] | None = None
        self._load()

    def _load(self) -> None:
        state = self._adapter.load() if self._writes else None
        if state is None:
            return
        self.metrics, self._reports, self._generators = state["metrics"], state["reports"], state["generators"]
        if state["file"] is not None and self._adapter.folder is not None:
            self.ckpt_path = str(self._adapter.folder / state["file"])

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Check that the trainer's processes can report, and go on with the random numbers of the checkpoint.

        This is before the first batch is drawn, so the next epoch has the order that it would have had.

        Raises:
            RunError: the trainer has started processes that have no trial.
        """
        del pl_module
        if trainer.world_size > 1:
            self._check_processes(trainer)
        if self.ckpt_path is None:
            if self._writes and not self._adapter.per_epoch:
                self._save(None)  # so that reports before the first checkpoint are not kept
        elif trainer.ckpt_path is None:
            log.warning("the trial begins anew: Trainer.fit(…) was not given ckpt_path=callback.ckpt_path")
            self._reports = 0
        elif self._generators is not None:
            write_generators(self._generators)

    def _check_processes(self, trainer: Any) -> None:
        launcher = trainer.strategy.launcher
        if self._adapter.folder is not None or getattr(launcher, "is_interactive_compatible", False):
            raise RunError(
                f"{WHERE}: the trainer starts {trainer.world_size} processes, which cannot report to this one's trial; "
                "give it devices=1 and start a worker for each device"
            )

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Report the metrics of a validation, but for the one before training that only checks the code."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._validated = True
        if not self._adapter.per_epoch and self._at_validation is not False and self._is_logged(trainer):
            self._at_validation = True
            self._report(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Report what is there only at the end of an epoch, and write a checkpoint."""
        measured = self._validated or not trainer.enable_validation
        if self._adapter.per_epoch:
            if measured:
                self._report(trainer, pl_module)
        elif not self._at_validation and (measured or self._is_logged(trainer)):
            self._at_validation = False
            self._report(trainer, pl_module)
        self._validated = False
        if self._writes and self._adapter.save_due():
            self._write_checkpoint(trainer)

    def _is_logged(self, trainer: Any) -> bool:
        return self._monitor in trainer.callback_metrics

    def _report(self, trainer: Any, pl_module: Any) -> None:
        self.metrics = select_numbers(trainer.callback_metrics)
        step = self._reports if _validates_often(trainer) else pl_module.current_epoch
        self._reports += 1
        if trainer.world_size == 1:
            self._adapter.report(self.metrics, step)
            trainer.should_stop = trainer.should_stop or self._adapter.should_stop()
        else:
            self._report_for_all(trainer, step)

    def _report_for_all(self, trainer: Any, step: int) -> None:
        """Report from the process that has the trial, and end all of them together."""
        end: Exception | None = None
        try:
            self._adapter.report(self.metrics, step)
        except Exception as error:
            end = error
        end = trainer.strategy.broadcast(end)
        if end is not None:
            raise end

    def _write_checkpoint(self, trainer: Any) -> None:
        folder = self._adapter.folder
        assert folder is not None
        name = f"epoch-{trainer.current_epoch + 1}.ckpt"
        trainer.save_checkpoint(folder / name)
        self._save(name)
        for path in folder.glob("epoch-*.ckpt"):
            if path.name != name:
                path.unlink(missing_ok=True)

    def _save(self, name: str | None) -> None:
        generators = read_generators()
        state = {"file": name, "metrics": self.metrics, "reports": self._reports, "generators": generators}
        self._adapter.save(state)


def _validates_often(trainer: Any) -> bool:
    """Return whether there may be several validations in an epoch, or epochs do not decide when there is one."""
    return bool(trainer.check_val_every_n_epoch is None or trainer.val_check_batch < trainer.num_training_batches)
