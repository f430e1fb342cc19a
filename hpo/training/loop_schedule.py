"""Schedule of a trial as a scheduler of torch, for training loops of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from hpo.config.trial_config import TrialConfig
from hpo.errors import RunError
from hpo.training.schedules import rate_at
from hpo.utils.text import quantity

__all__ = ["WHAT_STEPS_ARE", "LoopSchedule"]

WHAT_STEPS_ARE = "steps are those of the optimizer in an epoch, that of a smaller last batch too"


class LoopSchedule(LRScheduler):
    """Scheduler whose `step` follows each step of the optimizer; see `hpo.training.custom_loop.Trial.schedule`.

    Args:
        optimizer: its groups keep the ratios of their learning rates to the configuration's.
        config: with the schedule, the warm-up and the number of epochs.
        steps: of the optimizer in an epoch.
        falls: returns how often the rate has fallen so far, under `reduce_on_plateau`.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, config: TrialConfig, steps: int, falls: Callable[[], int]
    ) -> None:
        self._config, self._steps, self._falls = config, steps, falls
        super().__init__(optimizer)

    @override
    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the learning rate of each group at the present step."""
        config = self._config
        self.check_steps(config.epochs)
        rate = rate_at(config, self.last_epoch, config.epochs * self._steps, self._falls())
        return [rate * (base / config.learning_rate) for base in self.base_lrs]

    def check_steps(self, epochs: int) -> None:
        """Refuse more steps than so many epochs have: rates beyond the end of a schedule may be negative.

        Raises:
            RunError: there were more.
        """
        if self.last_epoch > epochs * self._steps:
            raise RunError(
                f"objective '{self._config.model}': trial.schedule(…, steps={self._steps}): was stepped "
                f"{self.last_epoch} times in {quantity(epochs, 'epoch')}; {WHAT_STEPS_ARE}"
            )

    def refresh(self) -> None:
        """Set the rates anew, after an epoch that may have let them fall."""
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return the steps done and the rates that the groups began with."""
        return {"last_epoch": self.last_epoch, "base_lrs": self.base_lrs}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.last_epoch, self.base_lrs = int(state_dict["last_epoch"]), list(state_dict["base_lrs"])
        self.refresh()
