"""A learner of many dense models at once, and of one where that is faster too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from hpo.config.model_size import count_outputs, resolve_width
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError
from hpo.training.learner import EVALUATION_BATCH, EvalResult, Rates
from hpo.training.member import Member, Scores, State, Weights
from hpo.training.models import build_model, parameter_count
from hpo.training.stacked.losses import ReconstructionLoss, ReconstructionRecord, StackLoss, StackRecord, count_correct
from hpo.training.stacked.mlp import Network, StackedMLP
from hpo.training.stacked.optimizers import make_stacked_optimizer, optimizer_family

__all__ = ["StackedLearner"]

# Steps that one stack does before the next stack's turn: its weights, and what its optimizer remembers, then stay in
# the processor's cache.
BLOCK = 8
# Models whose widest layers are within the same this many units are padded to one size. The grid of 2,700's 50 widths,
# depths and optimizers, per model and step at batch 4, 32 and 128: 95, 147 and 378 us; unpadded 118, 160 and 382.
CLASS = 25


@dataclass
class Model:
    """A member with all that its training goes on from.

    Attributes:
        member: the trial.
        network: its shape.
        weights: as its module's state dict, running statistics included.
        slots: of its optimizer by name, each as the weights are; empty before the first step.
        steps: how many its optimizer has done.
    """

    member: Member
    network: Network
    weights: Weights
    slots: dict[str, Weights] = field(default_factory=dict)
    steps: int = 0


class StackedLearner:
    """A cohort of dense models. Those that one optimizer serves, and that are of a size, are one stack.

    Args:
        members: the trials, equal in what `hpo.config.cohort_key.COHORT_PARAMETERS` names, each with its own number.
        shape: of one sample.
        classes: of the data.
        device: where the models are trained.
        record_steps: whether `step_losses` will be asked for.
    """

    def __init__(
        self,
        members: Sequence[Member],
        shape: tuple[int, ...],
        classes: int,
        device: torch.device,
        *,
        record_steps: bool = False,
    ) -> None:
        self._device, self._record_steps = device, record_steps
        self._features = torch.Size(shape).numel()
        self._outputs = count_outputs(members[0].config.model, shape, classes)
        self._reconstructs = members[0].config.reconstructs
        self.members = list(members)
        models: list[Model] = []
        for member in members:
            module = build_model(member.config, shape, classes)
            member.parameter_count = parameter_count(module)
            network = _network(resolve_width(member.config, shape, classes), module)
            models.append(Model(member, network, module.state_dict()))
        self._arrange(models)
        self._eye = torch.eye(classes, dtype=self._stacks[0].dense.output.dtype, device=device)
        self._batches = self._eye.new_empty(BLOCK, 0, 0)
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    def _arrange(self, models: Sequence[Model]) -> None:
        """Put models into stacks, each at its place in one."""
        ordered = sorted(models, key=lambda model: (_kind(model), _place(model)))
        groups = [list(group) for _, group in groupby(ordered, key=_kind)]
        self._stacks = [self._stack(group) for group in groups]
        self._places = {
            model.member.number: (stack, index) for stack in self._stacks for index, model in enumerate(stack.models)
        }

    def _stack(self, models: Sequence[Model]) -> Stack:
        return Stack(models, self._features, self._outputs, self._device, record_steps=self._record_steps)

    def begin_epoch(self, samples: int, rates: Rates) -> None:  # noqa: ARG002  what is recorded has a size of its own
        """See `Learner`. Members that have been dropped leave their stacks."""
        self._waiting.clear()
        if len(self.members) < len(self._places):
            self._arrange([stack.model(index) for stack, index in map(self._place_of, self.members)])
        rows = dict(zip((member.number for member in self.members), rates, strict=True))
        for stack in self._stacks:
            stack.begin_epoch(np.array([rows[model.member.number] for model in stack.models]))

    def _place_of(self, member: Member) -> tuple[Stack, int]:
        return self._places[member.number]

    @torch.no_grad()
    def step(self, x: Tensor, y: Tensor) -> None:
        """See `Learner`. With several stacks it is done once `BLOCK` of them wait, or something is asked."""
        if len(x) == 1 and any(stack.normalised for stack in self._stacks):
            raise ConfigError("batch_norm = true: a batch of one sample has no statistics; use another batch_size")
        batch = self._with_ones(x, len(self._waiting))
        target = x.flatten(1).t().contiguous() if self._reconstructs else self._eye.index_select(1, y)
        self._waiting.append((batch, y, target))
        if len(self._waiting) >= BLOCK or len(self._stacks) == 1:
            self._catch_up()

    def _catch_up(self) -> None:
        """Do the steps that wait, stack by stack."""
        for stack in self._stacks:
            for batch, y, target in self._waiting:
                stack.step(batch, y, target)
        self._waiting.clear()

    def _with_ones(self, x: Tensor, place: int = 0) -> Tensor:
        """The batch as stacks read it: features, a one, and zeros; in memory that the next one at that place reuses."""
        if len(x) > self._batches.shape[1]:
            self._batches = self._eye.new_zeros(BLOCK, len(x), self._stacks[0].dense.inputs)
            self._batches[..., self._features] = 1
        batch = self._batches[place, : len(x)]
        batch[:, : self._features] = x.flatten(1)
        return batch

    @torch.no_grad()
    def end_epoch(self) -> list[Scores]:
        """See `Learner`."""
        self._catch_up()
        found = {
            model.member.number: scores
            for stack in self._stacks
            for model, scores in zip(stack.models, stack.record.read(), strict=True)
        }
        return [found[member.number] for member in self.members]

    @torch.no_grad()
    def step_losses(self) -> list[Tensor]:
        """See `Learner`."""
        found = {
            model.member.number: losses
            for stack in self._stacks
            for model, losses in zip(stack.models, stack.record.steps().cpu(), strict=True)
        }
        return [found[member.number] for member in self.members]

    @torch.no_grad()
    def evaluate(self, x: Tensor, y: Tensor, *, outputs: bool = True) -> list[EvalResult]:
        """See `Learner`."""
        kept: list[list[Tensor]] = [[] for _ in self._stacks]
        sums: list[list[Tensor]] = [[] for _ in self._stacks]
        for chunk in torch.split(x, EVALUATION_BATCH):
            batch = self._with_ones(chunk)
            target = chunk.flatten(1).t().contiguous() if self._reconstructs else None
            for stack, its_outputs, its_sums in zip(self._stacks, kept, sums, strict=True):
                found = stack.dense.forward(batch, train=False)
                if target is not None:
                    its_sums.append(stack.reconstruction_sums(found, target))
                if outputs or target is None:
                    its_outputs.append(found.clone())
        told: dict[int, EvalResult] = {}
        for stack, its_outputs, its_sums in zip(self._stacks, kept, sums, strict=True):
            whole = torch.cat(its_outputs, 2) if its_outputs else None
            scores = _means(its_sums, len(x)) if self._reconstructs else stack.scores(whole, y)
            for index, (model, each) in enumerate(zip(stack.models, scores, strict=True)):
                told[model.member.number] = EvalResult(each, None if whole is None else whole[index].t())
        return [told[member.number] for member in self.members]

    def weights(self, member: Member) -> Weights:
        """See `Learner`."""
        stack, index = self._place_of(member)
        return {name: value.to("cpu", copy=True) for name, value in stack.weights(index).items()}

    @torch.no_grad()
    def load(self, member: Member, weights: Weights) -> None:
        """See `Learner`."""
        stack, index = self._place_of(member)
        stack.take(index, weights, {}, 0)

    @torch.no_grad()
    def state(self, member: Member) -> State:
        """See `Learner`."""
        self._catch_up()
        stack, index = self._place_of(member)
        model, record = stack.model(index), stack.record.state(index)
        return {"weights": model.weights, "slots": model.slots, "steps": model.steps, "record": record}

    @torch.no_grad()
    def load_state(self, member: Member, state: State) -> None:
        """See `Learner`."""
        stack, index = self._place_of(member)
        stack.take(index, state["weights"], state["slots"], state["steps"])
        if state["record"] is not None:
            stack.record.load(index, state["record"])

    def drop(self, member: Member) -> None:
        """See `Learner`."""
        self.members.remove(member)


class Stack:
    """Models that are trained by the same operations.

    Attributes:
        models: in the order of the stack; their tensors are those they came with, not those in training.
        normalised: whether they have batch normalisation.
    """

    def __init__(
        self, models: Sequence[Model], features: int, outputs: int, device: torch.device, *, record_steps: bool
    ) -> None:
        self.models = list(models)
        self.normalised = bool(models[0].network.norm)
        configs = [model.member.config for model in models]
        like = next(iter(models[0].weights.values())).new_empty(0, device=device)
        self.dense = StackedMLP([model.network for model in models], features, outputs, like)
        self.loss: StackLoss | ReconstructionLoss
        self.record: StackRecord | ReconstructionRecord
        if configs[0].reconstructs:
            self.loss = ReconstructionLoss(configs, features)
            self.record = ReconstructionRecord(self.loss, len(models), like, by_step=record_steps)
        else:
            self.loss = StackLoss(configs, outputs, like)
            self.record = StackRecord(self.loss, len(models), outputs, like, by_step=record_steps)
        self._update = make_stacked_optimizer(configs, self.dense.parameters, self.dense.below)
        self._gradients = [torch.empty_like(each) for each in self.dense.parameters] if self._update else []
        for index, model in enumerate(models):
            self.take(index, model.weights, model.slots, model.steps)

    def begin_epoch(self, rates: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> None:
        """Take the learning rates of the epoch's steps, (members, steps)."""
        self.record.begin()
        self._rates = self.dense.output.new_tensor(rates.T)[..., None, None]
        self._step = 0

    def step(self, x: Tensor, y: Tensor, target: Tensor) -> None:
        """One step on a batch (n, inputs) with its labels (n,), and what outputs are to be, (outputs, n)."""
        rate = self._rates[self._step]
        outputs = self.dense.forward(x, train=True)
        self.record.add(outputs, y, target)
        if self._update is None:
            down = self.loss.gradient(outputs, target, rate / -len(y))
            self.dense.backward(x, down, self.dense.parameters, add=True)
        else:
            gradient = self.loss.gradient(outputs, target, 1 / len(y))
            self.dense.backward(x, gradient, self._gradients, add=False)
            self._update.step(self._gradients, rate)
        self._step += 1

    def scores(self, outputs: Tensor | None, y: Tensor) -> list[Scores]:
        """Mean loss, without label smoothing, and accuracy of outputs (members, classes, n) against labels (n,)."""
        assert isinstance(self.loss, StackLoss)
        assert outputs is not None
        losses = (self.loss.value(outputs, y, smoothing=False) / len(y)).tolist()
        right = count_correct(outputs, y).tolist()
        return [{"loss": loss, "accuracy": count / len(y)} for loss, count in zip(losses, right, strict=True)]

    def reconstruction_sums(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Loss and reconstruction error of outputs (members, features, n), each summed over samples, (members, 2)."""
        assert isinstance(self.loss, ReconstructionLoss)
        return torch.stack([self.loss.value(outputs, target), self.loss.error(outputs, target)], 1)

    def model(self, index: int) -> Model:
        """The member at that place, with a copy of what is in training."""
        slots: dict[str, Weights] = {}
        for name, slot in self._update.slots.items() if self._update else ():
            slots[name] = {key: view.clone() for key, view in self.dense.views(index, slot).items()}
        weights = {name: view.clone() for name, view in self.weights(index).items()}
        return replace(
            self.models[index], weights=weights, slots=slots, steps=self._update.steps if self._update else 0
        )

    def weights(self, index: int) -> Weights:
        """A member's part of what is in training, as its module's state dict."""
        views = {**self.dense.views(index, self.dense.parameters), **self.dense.statistics(index)}
        return {name: views[name] for name in self.models[index].weights}

    def take(self, index: int, weights: Weights, slots: dict[str, Weights], steps: int) -> None:
        """Take up the weights of a member, what its optimizer remembers, and how far it is."""
        for name, view in self.weights(index).items():
            view.copy_(weights[name])
            if name.endswith("num_batches_tracked"):
                self.dense.tracked = int(weights[name])
        if self._update is None:
            return
        for key, held in slots.items():
            for name, view in self.dense.views(index, self._update.slots[key]).items():
                view.copy_(held[name])
        if steps:
            self._update.steps = steps


def _means(sums: Sequence[Tensor], samples: int) -> list[Scores]:
    """Loss and reconstruction error of each member, from their sums over parts of the samples."""
    means = (torch.stack(list(sums)).sum(0) / samples).tolist()
    return [{"loss": loss, "reconstruction_error": error} for loss, error in means]


def _network(config: TrialConfig, module: nn.Module) -> Network:
    """The shape of a dense module, and the names of its tensors."""
    linear = tuple(name for name, part in module.named_modules() if isinstance(part, nn.Linear))
    norm = tuple(name for name, part in module.named_modules() if isinstance(part, nn.BatchNorm1d))
    widths = config.hidden_widths
    latent = len(widths) // 2 if config.reconstructs else None  # the layer without activation and dropout
    activations = tuple("linear" if layer == latent else config.activation for layer in range(len(widths)))
    dropouts = tuple(0.0 if layer == latent else config.dropout for layer in range(len(widths)))
    return Network(widths, activations, dropouts, linear, norm)


def _kind(model: Model) -> tuple[str, bool, str, int]:
    """Equal for models of one stack."""
    config, network = model.member.config, model.network
    return optimizer_family(config), bool(network.norm), config.loss, -(-max(network.widths, default=0) // CLASS)


def _place(model: Model) -> tuple[object, ...]:
    """The order in a stack: deepest first; equal activations, and equal settings of the optimizer, side by side."""
    config = model.member.config
    settings = config.learning_rate, config.schedule, config.epochs, config.beta1, config.beta2, config.weight_decay
    more = config.epsilon, config.final_rate, config.warmup, config.layer_learning_rate_decay
    return -len(model.network.widths), config.activation, *settings, *more
