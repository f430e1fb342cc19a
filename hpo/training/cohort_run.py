"""Training of one cohort: its stacks, in lockstep."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.training.callbacks import Callback
from hpo.training.member import Member, TrainResult
from hpo.training.stack_run import StackRun

__all__ = ["CohortRun"]


class CohortRun:
    """Training of a cohort, a set of stacks, from where each begins to the end of its last trial.

    In each round every trial in training does one epoch, or the rest of the one in whose midst it was interrupted: one
    stack after the other does it whole. Stacks that begin at different places keep their distance.

    Args:
        stacks: at least one; their members have numbers of their own.
        callbacks: of all members.
    """

    def __init__(self, stacks: Sequence[StackRun], callbacks: Sequence[Callback]) -> None:
        self._stacks = stacks
        self._callbacks = callbacks

    def train(self) -> dict[int, TrainResult]:
        """Train all epochs that are left, and return the results by the trials' numbers."""
        members = [member for stack in self._stacks for member in stack.live]
        for member in sorted(members, key=lambda member: member.number):
            for callback in self._callbacks:
                callback.on_start(member)
        self._remove_stopped()  # a callback may know already that one need not begin
        while any(stack.live for stack in self._stacks):
            if not self._train_round():
                for stack in self._stacks:
                    stack.interrupt()
        return {number: result for stack in self._stacks for number, result in stack.results.items()}

    def _train_round(self) -> bool:
        """Do an epoch of every trial in training; return false when asked to stop before the last has done it."""
        ended: list[Member] = []
        complete = True
        for stack in [stack for stack in self._stacks if stack.live]:
            members = stack.train_epoch()
            if members is None:
                complete = False
                break
            ended += members
        if live := [member for member in ended if not member.stopped]:
            for callback in self._callbacks:
                callback.on_round(live)
            self._remove_stopped()
        return complete

    def _remove_stopped(self) -> None:
        for stack in self._stacks:
            stack.remove_stopped()
