"""A loop that trains nothing, at the same time: what a worker sees of a cohort, without the wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpo.config.trial_config import TrialConfig
from hpo.training.callbacks import Callback
from hpo.training.member import Member, TrainResult
from hpo.training.settings import TrainSettings

__all__ = ["Stack"]


class Stack:
    """A loop that trains its members at the same time: they end when they will, each at its own epoch.

    Attributes:
        trained: the configurations of each call.
        before: called before every epoch with the number of the call and the epoch.
    """

    def __init__(self, before: Callable[[int, int], object] = lambda *_: None) -> None:
        self.trained: list[list[TrialConfig]] = []
        self.before = before

    def __call__(
        self,
        configs: Sequence[TrialConfig],
        _data: object,
        settings: TrainSettings,
        checkpoints: object = None,
        links: object = None,
    ) -> list[TrainResult]:
        callbacks, should_stop = settings.callbacks, settings.should_stop
        self.trained.append(list(configs))
        members = [Member(config, number, 10) for number, config in enumerate(configs)]
        outcomes: dict[int, TrainResult] = {}
        for callback in callbacks:
            for member in members:
                callback.on_start(member)
        left, epoch = list(members), 0
        while left:
            epoch += 1
            self.before(len(self.trained), epoch)
            if should_stop():
                for member in left:
                    member.stop("interrupted")
            else:
                self._epoch(left, epoch, callbacks)
            for member in [m for m in left if m.stopped or epoch == m.config.epochs]:
                left.remove(member)
                outcomes[member.number] = self._outcome(member, callbacks)
        return [outcomes[member.number] for member in members]

    def _epoch(self, members: Sequence[Member], epoch: int, callbacks: Sequence[Callback]) -> None:
        for member in members:
            value = epoch * member.config.learning_rate
            row = {"epoch": epoch, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": value, "seconds": 1.0}
            member.history.append(row)
            member.best_epoch, member.best_weights = epoch, {}
            for callback in callbacks:
                callback.on_epoch(member, row)
        if going := [member for member in members if not member.stopped and epoch < member.config.epochs]:
            for callback in callbacks:
                callback.on_round(going)

    def _outcome(self, member: Member, callbacks: Sequence[Callback]) -> TrainResult:
        status = member.stopped or "completed"
        found = TrainResult(member.config, status, member.history, member.best_epoch, member.best, 10, 1.0, {})
        for callback in callbacks:
            callback.on_end(member, found)
        return found
