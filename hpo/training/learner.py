"""Learners: the interface between the training loop and its models, and the learner of a single `nn.Module`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from hpo.config import registry
from hpo.errors import ConfigError
from hpo.training.averaging import make_average, measure_batch_norm
from hpo.training.batch_group import BatchGroup
from hpo.training.data import TrainBatch
from hpo.training.device import copy_to_cpu
from hpo.training.losses import column_loss, loss_function, loss_target, reconstruct
from hpo.training.member import Member, Scores, State, Weights
from hpo.training.models import parameter_count
from hpo.training.optimizers import group_by_rate, has_layer_rates, make_optimizer
from hpo.training.precision import Precision
from hpo.training.scores import TargetMoments, count_right_labels, r2_score, sum_squared_errors
from hpo.training.step_records import LossRecord, OutputRecord
from hpo.training.transfer import build_initial_model, find_frozen_norms

__all__ = [
    "EvalResult",
    "Learner",
    "ModuleLearner",
    "Rates",
]

Rates = Sequence[Sequence[float]]  # of each member, at each step
# Samples per forward pass of an evaluation: the activations of a CNN's first block stay below 30 MB.
EVALUATION_BATCH = 256
NO_STATISTICS = "Expected more than 1 value per channel"  # torch's error of batch normalisation


@dataclass(frozen=True)
class EvalResult:
    """Evaluation of a member on some samples.

    Attributes:
        scores: mean loss, without label smoothing and weights, and accuracy: the share of samples, or of labels, that
            are right; of real targets loss and r2; of a model that reconstructs its input, loss and
            reconstruction_error: the mean square of the difference, over samples and their numbers.
        outputs: (N, outputs), before any softmax or sigmoid; None where they were not asked for.
        samples: of a model that reconstructs its input, loss and reconstruction error of each sample, (2, N).
    """

    scores: Scores
    outputs: Tensor | None = None
    samples: Tensor | None = None


class Learner(Protocol):
    """Models of a cohort that are trained together: one `nn.Module`, or several stacked into one.

    Every list has an item per member that is still in training, in the order of `members`.
    """

    members: list[Member]

    def begin_epoch(self, samples: int, rates: Rates, seeds: Sequence[int] | None = None) -> None:
        """Prepare for an epoch.

        Args:
            samples: the most that the epoch may have; 0 where that is not known.
            rates: each member's learning rates at the batches to come.
            seeds: of each member's noise, where it is drawn for members; by default that of torch's global generator.
        """

    def room(self, samples: int) -> Tensor | None:
        """Return memory for the samples of the next step, (samples, features), from which `step` need not copy them.

        None where any memory will do.
        """

    def step(self, x: Tensor, y: Tensor, w: Tensor | None = None, sizes: Sequence[int] | None = None) -> None:
        """Do one optimizer step on a batch, x (n, *shape) and y (n,) or (n, columns).

        Where the gradients of several batches are accumulated, the step is done with the last of them, or by
        `end_epoch`; see `hpo.training.batch_group`.

        Args:
            x, y: of all members. Where they have batches of their own, these have a first dimension; see
                `hpo.training.joint_batches`.
            w: weights of the samples (n,), or of each of their labels (n, columns), in the loss; None for 1 each.
            sizes: of batches of their own, how many samples count; None where all do.
        """

    def end_epoch(self) -> list[Scores]:
        """Return the scores of `EvalResult` over the epoch's steps, each measured before its step.

        The loss is the one that is trained, smoothed and weighted, and of models that reconstruct the only one.
        """

    def step_losses(self) -> list[Tensor]:
        """Return the mean loss before each step of the epoch, (steps,), on the CPU; call it after `end_epoch`."""

    def measure_statistics(self, batches: Callable[[], Iterable[TrainBatch]]) -> None:
        """Measure the statistics of batch normalisation anew where weights are averages, for evaluation.

        Call it after `end_epoch`.

        Args:
            batches: returns the epoch's batches.
        """

    def evaluate(self, x: Tensor, y: Tensor, *, outputs: bool = True) -> list[EvalResult]:
        """Evaluate each member, without dropout and with the running statistics of batch normalisation.

        Weights are averages where a configuration asks for such; see `hpo.training.averaging`.

        Args:
            x: samples, (N, *shape).
            y: classes (N,), labels or targets (N, columns).
            outputs: false drops those of models that reconstruct their input: they are as large as the data.
        """

    def evaluate_each(self, samples: Sequence[tuple[Tensor, Tensor]], *, outputs: bool = True) -> list[EvalResult]:
        """Evaluate each member on samples x and y of its own; see `evaluate`."""

    def weights(self, member: Member) -> Weights:
        """Return a copy of the weights that a member is evaluated with, on the CPU."""

    def load(self, member: Member, weights: Weights) -> None:
        """Load weights that `weights` returned."""

    def state(self, member: Member) -> State:
        """Return the state to resume that member's training from, also in the midst of an epoch.

        It has weights, running statistics, the optimizer's state, and the record of the epoch's steps so far. Its
        tensors may be the ones in training, in their own layout: write them before the next step.
        """

    def load_state(self, member: Member, state: State) -> None:
        """Load, and keep, a state that `state` returned; after `begin_epoch`, for it holds a record of the epoch."""

    def drop(self, member: Member) -> None:
        """Stop training that member."""


class ModuleLearner:
    """Learner of a cohort of one: any `nn.Module`, any torch optimizer.

    Args:
        member: the trial.
        shape: of one sample.
        classes: of the data.
        device: where the model is trained.
        module: instead of the model that its configuration names.
    """

    def __init__(
        self,
        member: Member,
        shape: tuple[int, ...],
        classes: int,
        device: torch.device,
        module: nn.Module | None = None,
    ) -> None:
        config = member.config
        self.module = (module or build_initial_model(config, shape, classes)).to(device)
        self._frozen_norms = find_frozen_norms(self.module) if config.freeze else []
        member.parameter_count = parameter_count(self.module)
        self.members = [member]
        self._config = config
        self._device = device
        self._parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self._optimizer, self._factors = self._make_optimizer()
        self._group = BatchGroup(config) if config.batches_per_step > 1 else None
        self._average = make_average(config, self.module, self._optimizer)
        self._evaluated = self.module
        self._precision = Precision(config, device)
        entry = registry.models.get(config.model)
        self._augment, self._is_own = entry.augment, not entry.builtin
        self._loss = loss_function(config)
        self._validation_loss = loss_function(config, smoothing=False)
        self._closure_steps = isinstance(self._optimizer, torch.optim.LBFGS)
        self._record: OutputRecord | LossRecord = LossRecord() if config.reconstructs else OutputRecord()

    def begin_epoch(self, samples: int, rates: Rates, seeds: Sequence[int] | None = None) -> None:  # noqa: ARG002
        """Prepare for an epoch; see `Learner`."""
        self.module.train()
        for norm in self._frozen_norms:
            norm.eval()
        self._record.begin(samples)
        self._rates = iter(rates[0])

    def room(self, samples: int) -> Tensor | None:  # noqa: ARG002
        """Return None; see `Learner`."""
        return None

    def step(self, x: Tensor, y: Tensor, w: Tensor | None = None, sizes: Sequence[int] | None = None) -> None:  # noqa: ARG002
        """Do one optimizer step; see `Learner`."""
        rate = next(self._rates)
        for group, factor in zip(self._optimizer.param_groups, self._factors, strict=True):
            group["lr"] = rate * factor
        if self._closure_steps:
            self._step_by_closure(x, y, w)
            return
        outputs, loss = self._backward(x, y, w)
        if self._group is None or self._group.whole:
            self._update()
        self._record.add(outputs, y, loss, w)

    def _update(self) -> None:
        """Do the optimizer's step along the gradients."""
        changed = self._config.gradient_clip or self._group is not None
        self._precision.step(self._optimizer, self._change_gradients if changed else None)
        if self._average is not None:
            self._average.step()

    def _change_gradients(self) -> None:
        """Make the sum of a group's gradients their mean, and clip it."""
        if self._group is not None:
            for parameter in self._parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(self._group.correction)
            self._group.clear()
        if self._config.gradient_clip:
            nn.utils.clip_grad_norm_(self._parameters, self._config.gradient_clip)

    def _make_optimizer(self) -> tuple[torch.optim.Optimizer, list[float]]:
        """Return the optimizer, and the learning rate factors of its groups: one for all, or one a layer."""
        config = self._config
        if not has_layer_rates(config) or "layer_learning_rate_decay" not in config.effective():
            return make_optimizer(config, self._parameters), [1.0]
        groups = group_by_rate(config, self.module)
        return make_optimizer(config, [{"params": group} for group in groups.values()]), [*groups]

    def _backward(self, x: Tensor, y: Tensor, w: Tensor | None) -> tuple[Tensor, Tensor]:
        inputs = x if self._augment is None else self._augment(x.clone(), self._config)
        try:
            outputs = self._forward(self.module, inputs)
        except ValueError as error:
            if len(x) == 1 and NO_STATISTICS in str(error):
                raise ConfigError(
                    f"model '{self._config.model}': its batch normalisation has no statistics in a batch of one "
                    "sample; use another batch_size"
                ) from error
            raise
        loss = self._loss(outputs, loss_target(self._config, x, y), w)
        if self._group is None or not self._group.begun:
            for parameter in self._parameters:  # zero_grad's own bookkeeping takes 8 us longer
                parameter.grad = None
        self._precision.backward(loss if self._group is None else loss * self._group.share(len(y)))
        if self._group is not None:
            self._group.add(len(y))
        return outputs.detach(), loss.detach()

    def _forward(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return a module's outputs for samples, which a model of the user's own may change: others see them too."""
        return self._precision.forward(module, x.clone() if self._is_own else x)

    def _step_by_closure(self, x: Tensor, y: Tensor, w: Tensor | None) -> None:
        """Do a step of L-BFGS, which evaluates the batch several times; record its first loss, from before the step."""
        first: list[tuple[Tensor, Tensor]] = []

        def closure() -> float:
            outputs, loss = self._backward(x, y, w)
            first.append((outputs, loss)) if not first else None
            return loss.item()

        self._optimizer.step(closure)
        if self._average is not None:
            self._average.step()
        outputs, loss = first[0]
        self._record.add(outputs, y, loss, w)

    def end_epoch(self) -> list[Scores]:
        """Return the mean scores of the epoch's steps; see `Learner`."""
        if self._group is not None and self._group.begun:  # fewer batches than a group has
            self._update()
        if self._average is not None:
            self._evaluated = self._average.end_epoch()
        if isinstance(self._record, LossRecord):
            return [{"loss": self._record.mean()}]
        outputs, y, w = self._record.read()
        return [{"loss": self._loss(outputs, y, w).item(), **self._score(outputs, y)}]

    def step_losses(self) -> list[Tensor]:
        """Return the loss of each step; see `Learner`."""
        if isinstance(self._record, LossRecord):
            return [self._record.by_step().cpu()]
        return [torch.stack([self._loss(*step) for step in self._record.by_step()]).cpu()]

    def measure_statistics(self, batches: Callable[[], Iterable[TrainBatch]]) -> None:
        """Measure the statistics of batch normalisation; see `Learner`."""
        if self._evaluated is not self.module:
            frozen = find_frozen_norms(self._evaluated) if self._config.freeze else []
            forward = partial(self._precision.forward, self._evaluated)
            measure_batch_norm(self._evaluated, frozen, forward, lambda: (x for x, *_ in batches()))

    @torch.no_grad()
    def evaluate(self, x: Tensor, y: Tensor, *, outputs: bool = True) -> list[EvalResult]:
        """Evaluate each member; see `Learner`."""
        self._evaluated.eval()
        parts = torch.split(x, EVALUATION_BATCH)
        if self._config.reconstructs and not outputs:
            each = [self._reconstruction_errors(self._forward(self._evaluated, part), part) for part in parts]
            return [_reconstruction_result(torch.cat(each, 1))]
        whole = torch.cat([self._forward(self._evaluated, part) for part in parts])
        if self._config.reconstructs:
            return [_reconstruction_result(self._reconstruction_errors(whole, x), whole)]
        return [EvalResult({"loss": self._validation_loss(whole, y).item(), **self._score(whole, y)}, whole)]

    def evaluate_each(self, samples: Sequence[tuple[Tensor, Tensor]], *, outputs: bool = True) -> list[EvalResult]:
        """Evaluate each member on samples of its own; see `Learner`."""
        return [each for x, y in samples for each in self.evaluate(x, y, outputs=outputs)]

    def _score(self, outputs: Tensor, y: Tensor) -> Scores:
        """Return the score beside the loss."""
        if self._config.task == "regression":
            errors = sum_squared_errors(outputs[:, : y.shape[1]].t(), y.t())
            return {"r2": r2_score(errors, TargetMoments.of(y).deviations).item()}
        if self._config.task == "multilabel":
            return {"accuracy": int(count_right_labels(outputs, y).item()) / y.numel()}
        return {"accuracy": _accuracy(outputs, y)}

    def _reconstruction_errors(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Return loss and reconstruction error of each sample, (2, n), in float64."""
        target = x.flatten(1)
        losses = column_loss(self._config)(outputs, target, "none")
        errors = reconstruct(self._config, outputs).sub(target).square()
        return torch.stack([losses.mean(1, dtype=torch.float64), errors.mean(1, dtype=torch.float64)])

    def weights(self, member: Member) -> Weights:
        """Copy a member's weights; see `Learner`."""
        assert member is self.members[0]
        return {name: copy_to_cpu(value) for name, value in self._evaluated.state_dict().items()}

    def state(self, member: Member) -> State:
        """Return a member's state; see `Learner`."""
        assert member is self.members[0]
        # In the layout they are in: a fused kernel walks weights and moments side by side through memory.
        return {
            "module": self.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "record": self._record.state(),
            "precision": self._precision.state(),
            **({} if self._average is None else {"average": self._average.state()}),
        }

    def load_state(self, member: Member, state: State) -> None:
        """Load a member's state; see `Learner`."""
        assert member is self.members[0]
        self.load(member, state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._precision.load(state.get("precision"))
        if self._average is not None:
            self._average.load(state["average"])
        if state["record"] is not None:
            self._record.load([tensor.to(self._device) for tensor in state["record"]])

    def load(self, member: Member, weights: Weights) -> None:
        """Load a member's weights; see `Learner`."""
        assert member is self.members[0]
        self.module.load_state_dict(weights)
        self._evaluated = self.module

    def drop(self, member: Member) -> None:
        """Drop a member; see `Learner`."""
        self.members.remove(member)


def _reconstruction_result(samples: Tensor, outputs: Tensor | None = None) -> EvalResult:
    loss, error = samples.mean(1).tolist()
    return EvalResult({"loss": loss, "reconstruction_error": error}, outputs, samples)


def _accuracy(outputs: Tensor, y: Tensor) -> float:
    return int((outputs.argmax(1) == y).sum().item()) / len(y)
