"""Notes on which models of a study are trained in stacks, and on which are not and why; see `hpo show`."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from hpo.config import registry
from hpo.config.cohort_key import is_measured, used_values, why_unstackable
from hpo.config.trial_config import TrialConfig, all_parameters
from hpo.study import Study
from hpo.study.operations.stack_notes import StackNote, read_stack_notes, write_stack_note
from hpo.training.callbacks import Callback
from hpo.training.member import Member, Metrics

__all__ = ["StackNotes", "shape_values"]

log = logging.getLogger("hpo.execution.worker")
DECIDING = ("optimizer", "precision", "weight_averaging", "freeze")  # with some of whose values no shape is stacked


class StackNotes(Callback):
    """Notes of one worker: the largest stack of each model, or why it is trained alone, as they are found.

    Args:
        study: of the worker.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._known: dict[str, StackNote] = {}
        self._said: set[tuple[str, str]] = set()

    def on_epoch(self, member: Member, metrics: Metrics) -> None:  # noqa: ARG002
        """Note the size of a stack, or why there is none, after the first epoch of an attempt."""
        if (member.stack > 1 or member.alone is not None) and len(member.history) == member.resumed_from + 1:
            self._note(member.config, member.stack, member.alone)

    def note_known(self, config: TrialConfig, device: str) -> None:
        """Note why a configuration is trained alone on that type of device, where no check need find that out."""
        if is_measured(config) and (why := why_unstackable(config, device)) is not None:
            table, values = all_parameters(), config.effective().items()
            decide = {name: each for name, each in values if name in DECIDING and each != table[name].default}
            self._note(config, 1, why, decide)

    def note_check(self, config: TrialConfig, why: str | None) -> None:
        """Note why a configuration is trained alone, or that it can be stacked."""
        self._note(config, 1, why)

    def note_delay(self, config: TrialConfig, why: str) -> None:
        """Note why a configuration is trained alone before it has been checked, unless a worker has found out more."""
        self._note(config, 1, why, only_first=True)

    def _note(
        self,
        config: TrialConfig,
        at_once: int,
        why: str | None,
        parameters: Mapping[str, object] | None = None,
        *,
        only_first: bool = False,
    ) -> None:
        """Note what is known of a configuration by some parameters; by default those that may decide its shapes."""
        if not is_measured(config):
            return
        if parameters is None:
            batch = {} if registry.models.get(config.model).loop else {"batch_size": config.batch_size}
            parameters = {**shape_values(config), **batch}
        note = StackNote.of(str(config.model), parameters, at_once, why)
        if self._says(note, only_first=only_first):
            return
        # Others write notes too, and a new one is rare.
        self._known |= {each.key: each for each in read_stack_notes(self._study)}
        if self._says(note, only_first=only_first):
            return
        if why is not None:
            if (note.model, why) not in self._said:
                log.info("model %s, or some of its shapes, is trained one at a time: %s", note.model, why)
            self._said.add((note.model, why))
        write_stack_note(self._study, note, len(self._known))
        self._known[note.key] = note

    def _says(self, note: StackNote, *, only_first: bool) -> bool:
        """Return whether what is known says as much as a note."""
        before = self._known.get(note.key)
        if before is None:
            return False
        return only_first or (before.at_once >= note.at_once and before.why == note.why)


def shape_values(config: TrialConfig) -> dict[str, object]:
    """Return the values that may decide the shapes of a model: all that it uses but real numbers."""
    return {name: value for name, value in used_values(config).items() if not isinstance(value, float)}
