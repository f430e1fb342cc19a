"""Callback for the Trainer of Hugging Face's transformers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hpo.errors import RunError
from hpo.integrations.adapter import AnyTrial, adapt_trial, make_callback, select_numbers

__all__ = ["TrialCallback"]

log = logging.getLogger("hpo.integrations")
BASES = ("transformers.TrainerCallback",)
WHERE = "hpo.integrations.transformers.TrialCallback"


class TrialCallback:
    """Callback of a Trainer that reports and prunes a trial, and finds its checkpoint again.

    ```python
    def objective(trial):
        callback = TrialCallback(trial, monitor="eval_loss")
        arguments = TrainingArguments(
            hpo.checkpoint(trial).folder, eval_strategy="epoch", save_strategy="epoch", save_total_limit=2,
            learning_rate=trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True),
        )
        trainer = Trainer(model, arguments, callbacks=[callback], …)
        trainer.train(resume_from_checkpoint=callback.ckpt_path)
        return callback.metrics["eval_loss"]
    ```

    The trial of an objective function reports `monitor` after each evaluation at the trainer's `global_step`, and is
    pruned by `optuna.TrialPruned`. The trial of a training loop reports all metrics of an evaluation as those of an
    epoch. The trainer writes the checkpoints, in its `output_dir`, which is to be within the trial's folder.

    `Trainer.hyperparameter_search` reports by itself, and needs no callback.

    Args:
        trial: `optuna.Trial` or `hpo.Trial`.
        monitor: the metric that an objective function's trial reports, such as `eval_loss`; None for none.

    Attributes:
        metrics: of the last evaluation, those of an earlier attempt too.
        ckpt_path: the checkpoint to begin from, for `Trainer.train`; None where there is none.

    Raises:
        RunError: in training, if evaluations do not have the metric, or several processes train together.
    """

    def __new__(cls, *_: Any, **__: Any) -> TrialCallback:
        """Make an object that is also a callback of the framework's."""
        return make_callback(cls, BASES, "transformers")

    def __init__(self, trial: AnyTrial, monitor: str | None = None) -> None:
        super().__init__()
        self.metrics: dict[str, float] = {}
        self.ckpt_path: str | None = None
        self._adapter = adapt_trial(trial, monitor, WHERE)
        self._reported_step = -1
        state = self._adapter.load()
        if state is not None and state["file"] is not None and self._adapter.folder is not None:
            self.metrics = state["metrics"]
            self.ckpt_path = str(self._adapter.folder / state["file"])

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Check that the trainer is alone, and where its checkpoints will be.

        Raises:
            RunError: it is one of several processes.
        """
        del control
        if args.world_size > 1:
            raise RunError(f"{WHERE}: {args.world_size} processes train one trial; start a worker for each device")
        folder = self._adapter.folder
        if folder is None or args.save_strategy == "no":
            return
        if not _is_within(folder, args.output_dir):
            log.warning(
                "the trial has no checkpoints: output_dir=%s is not within hpo.checkpoint(trial).folder",
                args.output_dir,
            )
        elif self.ckpt_path is None and not self._adapter.per_epoch:
            self._save(None)  # so that reports before the first checkpoint are not kept
        elif self.ckpt_path is not None and state.global_step == 0:
            log.warning("the trial begins anew: train was not given resume_from_checkpoint=callback.ckpt_path")

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, **_: Any) -> None:
        """Report the metrics of an evaluation, but not those of another one without further training."""
        del args
        if state.global_step == self._reported_step:
            return
        self._reported_step = state.global_step
        self.metrics = select_numbers(metrics or {})
        self._adapter.report(self.metrics, state.global_step)
        control.should_training_stop = control.should_training_stop or self._adapter.should_stop()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Record the checkpoint that the trainer has written."""
        del control
        folder = self._adapter.folder
        if folder is not None and _is_within(folder, args.output_dir):
            path = Path(args.output_dir).resolve() / f"checkpoint-{state.global_step}"
            self._save(str(path.relative_to(folder.resolve())))

    def _save(self, name: str | None) -> None:
        self._adapter.save({"file": name, "metrics": self.metrics})


def _is_within(folder: Path, output: str | None) -> bool:
    return output is not None and Path(output).resolve().is_relative_to(folder.resolve())
