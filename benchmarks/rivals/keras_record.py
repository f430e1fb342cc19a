"""Record of Keras's trials, by a callback. No user writes it, so its lines are not counted."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import keras

from benchmarks.rivals.session import trial


class Record(keras.callbacks.Callback):
    """Callback that records a model's training as one trial."""

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002  Keras names them
        self.stack = ExitStack()
        self.record = self.stack.enter_context(trial())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.record(logs["val_accuracy"])

    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002
        self.stack.close()
