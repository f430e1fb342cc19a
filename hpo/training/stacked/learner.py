"""Learner of many models at once, and of one where that is faster too."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from hpo.config.model_size import count_outputs, is_dense, resolve_width
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError
from hpo.training.learner import EVALUATION_BATCH, EvalResult, Rates
from hpo.training.member import Member, Scores, State, Weights
from hpo.training.models import build_model, parameter_count
from hpo.training.scores import TargetMoments
from hpo.training.stacked.losses import ReconstructionLoss, StackLoss, make_stack_loss
from hpo.training.stacked.mlp import Network, StackedMLP, batch_width
from hpo.training.stacked.modules import StackedModules, structure_of
from hpo.training.stacked.optimizers import make_stacked_optimizer, optimizer_family
from hpo.training.stacked.records import ReconstructionRecord, StackRecord
from hpo.training.stacked.sequential import StackedSequential, is_sequential

__all__ = ["StackedLearner"]

# Steps that one stack does before the next stack's turn: its weights and its optimizer's state then stay in the
# processor's cache.
BLOCK = 8
# Models whose widest layers are within the same this many units are padded to one size. The grid of 2,700's 50 widths,
# depths and optimizers, per model and step at batch 4, 32 and 128: 95, 147 and 378 us; unpadded 118, 160 and 382.
CLASS = 25


@dataclass
class Model:
    """Member with the whole state of its training.

    Attributes:
        member: the trial.
        network: its shape, or its module where that is more than dense layers of numbers.
        weights: its module's state dict, running statistics included.
        slots: the state of its optimizer, weights by the name of the slot; empty before the first step.
        steps: how many its optimizer has done.
    """

    member: Member
    network: Network | nn.Module
    weights: Weights
    slots: dict[str, Weights] = field(default_factory=dict)
    steps: int = 0


class StackedLearner:
    """Learner of a cohort of dense models. Those of one optimizer family and about one size are one stack.

    Args:
        members: the trials, equal in `hpo.config.cohort_key.stack_key`, each with its own number.
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
        self._shape, self._features, self._classes = tuple(shape), math.prod(shape), classes
        self._reconstructs = members[0].config.reconstructs
        self.members = list(members)
        models: list[Model] = []
        for member in members:
            module = build_model(member.config, shape, classes)
            member.parameter_count = parameter_count(module)
            dense = is_dense(member.config, shape)
            network = _network(resolve_width(member.config, shape, classes), module) if dense else module
            models.append(Model(member, network, module.state_dict()))
        self._build_stacks(models)
        self._batches = self._stacks[0].dense.output.new_empty(BLOCK, 0, 0)
        self._pending: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []

    def _build_stacks(self, models: Sequence[Model]) -> None:
        """Group models into stacks."""
        ordered = sorted(models, key=lambda model: (_stack_key(model), _sort_key(model)))
        groups = [list(group) for _, group in groupby(ordered, key=_stack_key)]
        self._stacks = [self._make_stack(group) for group in groups]
        self._places = {
            model.member.number: (stack, index) for stack in self._stacks for index, model in enumerate(stack.models)
        }

    def _make_stack(self, models: Sequence[Model]) -> Stack:
        outputs = count_outputs(models[0].member.config, self._shape, self._classes)
        return Stack(models, self._shape, outputs, self._device, record_steps=self._record_steps)

    def begin_epoch(self, samples: int, rates: Rates) -> None:  # noqa: ARG002  what is recorded has a size of its own
        """Prepare for an epoch; see `Learner`. Dropped members leave their stacks here."""
        self._pending.clear()
        if len(self.members) < len(self._places):
            self._build_stacks([stack.model(index) for stack, index in map(self._place_of, self.members)])
        rows = dict(zip((member.number for member in self.members), rates, strict=True))
        for stack in self._stacks:
            stack.begin_epoch(np.array([rows[model.member.number] for model in stack.models]))

    def _place_of(self, member: Member) -> tuple[Stack, int]:
        return self._places[member.number]

    def room(self, samples: int) -> Tensor:
        """Return memory for the samples of the next step; see `Learner`."""
        return self._batch_memory(samples, len(self._pending))[:, : self._features]

    @torch.no_grad()
    def step(self, x: Tensor, y: Tensor, w: Tensor | None = None) -> None:
        """Do one optimizer step; see `Learner`.

        With several stacks the step is postponed until `BLOCK` steps are pending, or a result is needed.
        """
        if len(x) == 1 and any(stack.normalised for stack in self._stacks):
            raise ConfigError("batch_norm = true: a batch of one sample has no statistics; use another batch_size")
        batch = self._pad_batch(x, len(self._pending))
        target = x.flatten(1).t().contiguous() if self._reconstructs else self._stacks[0].target(y)
        self._pending.append((batch, y, target, w))
        if len(self._pending) >= BLOCK or len(self._stacks) == 1:
            self._run_pending_steps()

    def _run_pending_steps(self) -> None:
        """Do the pending steps, stack by stack."""
        for stack in self._stacks:
            for batch, y, target, w in self._pending:
                stack.step(batch, y, target, w)
        self._pending.clear()

    def _pad_batch(self, x: Tensor, place: int = 0) -> Tensor:
        """Return the batch as stacks read it: features, a one, and zeros. Batches at one place share memory."""
        batch = self._batch_memory(x.shape[0], place)
        if x.data_ptr() != batch.data_ptr():  # else it lies there already; see `room`
            batch[:, : self._features] = x.flatten(1)
        return batch

    def _batch_memory(self, samples: int, place: int) -> Tensor:
        """Return memory for a batch, (samples, features, a one, and zeros)."""
        if samples > self._batches.shape[1]:
            self._batches = self._batches.new_zeros(BLOCK, samples, batch_width(self._features))
            self._batches[..., self._features] = 1
        return self._batches[place, :samples]

    @torch.no_grad()
    def end_epoch(self) -> list[Scores]:
        """Return the mean scores of the epoch's steps; see `Learner`."""
        self._run_pending_steps()
        by_number = {
            model.member.number: scores
            for stack in self._stacks
            for model, scores in zip(stack.models, stack.record.read(), strict=True)
        }
        return [by_number[member.number] for member in self.members]

    @torch.no_grad()
    def step_losses(self) -> list[Tensor]:
        """Return the loss of each step; see `Learner`."""
        by_number = {
            model.member.number: losses
            for stack in self._stacks
            for model, losses in zip(stack.models, stack.record.steps().cpu(), strict=True)
        }
        return [by_number[member.number] for member in self.members]

    @torch.no_grad()
    def evaluate(self, x: Tensor, y: Tensor, *, outputs: bool = True) -> list[EvalResult]:
        """Evaluate each member; see `Learner`."""
        kept: list[list[Tensor]] = [[] for _ in self._stacks]
        sums: list[list[Tensor]] = [[] for _ in self._stacks]
        dense = all(isinstance(stack.dense, StackedMLP) for stack in self._stacks)
        for chunk in torch.split(x, EVALUATION_BATCH):
            batch = chunk.flatten(1) if dense else self._pad_batch(chunk)
            target = chunk.flatten(1).t().contiguous() if self._reconstructs else None
            for stack, its_outputs, its_sums in zip(self._stacks, kept, sums, strict=True):
                predicted = stack.dense.forward(batch, train=False)
                if target is not None:
                    its_sums.append(stack.reconstruction_sums(predicted, target))
                if outputs or target is None:
                    its_outputs.append(predicted.clone())
        results: dict[int, EvalResult] = {}
        for stack, its_outputs, its_sums in zip(self._stacks, kept, sums, strict=True):
            whole = torch.cat(its_outputs, 2) if its_outputs else None
            scores = _means(its_sums, len(x)) if self._reconstructs else stack.scores(whole, y)
            for index, (model, each) in enumerate(zip(stack.models, scores, strict=True)):
                results[model.member.number] = EvalResult(each, None if whole is None else whole[index].t())
        return [results[member.number] for member in self.members]

    def weights(self, member: Member) -> Weights:
        """Copy a member's weights; see `Learner`."""
        stack, index = self._place_of(member)
        return {name: value.to("cpu", copy=True) for name, value in stack.weights(index).items()}

    @torch.no_grad()
    def load(self, member: Member, weights: Weights) -> None:
        """Load a member's weights; see `Learner`."""
        stack, index = self._place_of(member)
        stack.load(index, weights, {}, 0)

    @torch.no_grad()
    def state(self, member: Member) -> State:
        """Return a member's state; see `Learner`."""
        self._run_pending_steps()
        stack, index = self._place_of(member)
        model, record = stack.model(index), stack.record.state(index)
        return {"weights": model.weights, "slots": model.slots, "steps": model.steps, "record": record}

    @torch.no_grad()
    def load_state(self, member: Member, state: State) -> None:
        """Load a member's state; see `Learner`."""
        stack, index = self._place_of(member)
        stack.load(index, state["weights"], state["slots"], state["steps"])
        if state["record"] is not None:
            stack.record.load(index, state["record"])

    def drop(self, member: Member) -> None:
        """Drop a member; see `Learner`."""
        self.members.remove(member)


class Stack:
    """Stack of models that are trained by the same operations: dense networks, or modules of any kind.

    Attributes:
        models: in the order of the stack; their tensors are the initial ones, not those in training.
        normalised: true with batch normalisation.
        dense: the stacked models.
        loss: of the outputs.
        record: of the epoch's steps.
    """

    def __init__(
        self, models: Sequence[Model], shape: tuple[int, ...], outputs: int, device: torch.device, *, record_steps: bool
    ) -> None:
        self.models = list(models)
        configs = [model.member.config for model in models]
        like = next(iter(models[0].weights.values())).new_empty(0, device=device)
        features = math.prod(shape)
        self.dense = _stack_networks(models, features, outputs, like) or _stack_modules(models, shape, like)
        self.normalised = self.dense.normalised
        self.loss: StackLoss | ReconstructionLoss
        self.record: StackRecord | ReconstructionRecord
        if configs[0].reconstructs:
            self.loss = ReconstructionLoss(configs, features)
            self.record = ReconstructionRecord(self.loss, len(models), like, by_step=record_steps)
        else:
            self.loss = make_stack_loss(configs, outputs, like)
            self.record = StackRecord(self.loss, len(models), outputs, like, by_step=record_steps)
        self._update = make_stacked_optimizer(configs, self.dense.parameters, self.dense.below)
        self._gradients = [torch.empty_like(each) for each in self.dense.parameters] if self._update else []
        for index, model in enumerate(models):
            self.load(index, model.weights, model.slots, model.steps)

    def begin_epoch(self, rates: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> None:
        """Set the learning rates of the epoch's steps, (members, steps)."""
        self.record.begin()
        self._rates = self.dense.output.new_tensor(rates.T)[..., None, None]
        self._step = 0

    def target(self, y: Tensor) -> Tensor:
        """Return what gradients need of a batch's labels; see `StackLoss.target`."""
        assert isinstance(self.loss, StackLoss)
        return self.loss.target(y)

    def step(self, x: Tensor, y: Tensor, target: Tensor, w: Tensor | None = None) -> None:
        """Do one step on a batch (n, inputs) with its labels (n,) or (n, columns), targets (outputs, n) and weights."""
        rate = self._rates[self._step]
        outputs = self.dense.forward(x, train=True)
        self.record.add(outputs, y, target, w)
        if self._update is None:
            down = self._weigh(self.loss.gradient(outputs, target, rate / -len(y)), w)
            self.dense.backward(x, down, self.dense.parameters, add=True)
        else:
            gradient = self._weigh(self.loss.gradient(outputs, target, 1 / len(y)), w)
            self.dense.backward(x, gradient, self._gradients, add=False)
            self._update.step(self._gradients, rate)
        self._step += 1

    @staticmethod
    def _weigh(gradient: Tensor, w: Tensor | None) -> Tensor:
        """Multiply a gradient (members, outputs, n) by weights (n,) or (n, outputs)."""
        return gradient if w is None else gradient.mul_(w.t())

    def scores(self, outputs: Tensor | None, y: Tensor) -> list[Scores]:
        """Return the scores of outputs (members, outputs, n), without label smoothing, for y (n,) or (n, columns)."""
        assert isinstance(self.loss, StackLoss)
        assert outputs is not None
        losses = self.loss.value(outputs, y, smoothing=False) / len(y)
        moments = TargetMoments.of(y) if self.loss.score == "r2" else None
        scores = self.loss.scores(self.loss.score_sums(outputs, y), len(y), moments)
        pairs = torch.stack([losses, scores], 1).tolist()
        return [{"loss": loss, self.loss.score: score} for loss, score in pairs]

    def reconstruction_sums(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return loss and reconstruction error of outputs (members, features, n), summed over samples: (members, 2)."""
        assert isinstance(self.loss, ReconstructionLoss)
        return torch.stack([self.loss.value(outputs, target), self.loss.error(outputs, target)], 1)

    def model(self, index: int) -> Model:
        """Return the model at that place, with copies of its tensors in training."""
        slots: dict[str, Weights] = {}
        for name, slot in self._update.slots.items() if self._update else ():
            slots[name] = {key: view.clone() for key, view in self.dense.views(index, slot).items()}
        weights = {name: view.clone() for name, view in self.weights(index).items()}
        return replace(
            self.models[index], weights=weights, slots=slots, steps=self._update.steps if self._update else 0
        )

    def weights(self, index: int) -> Weights:
        """Return a member's part of the tensors in training, as its module's state dict; they are views."""
        views = {**self.dense.views(index, self.dense.parameters), **self.dense.statistics(index)}
        return {name: views[name] for name in self.models[index].weights}

    def load(self, index: int, weights: Weights, slots: dict[str, Weights], steps: int) -> None:
        """Load the weights of a member, its optimizer's state, and the number of its steps."""
        for name, view in self.weights(index).items():
            view.copy_(weights[name])
            if name.endswith("num_batches_tracked"):
                self.dense.tracked = int(weights[name])
        if self._update is None:
            return
        for key, slot in slots.items():
            for name, view in self.dense.views(index, self._update.slots[key]).items():
                view.copy_(slot[name])
        if steps:
            self._update.steps = steps


def _means(sums: Sequence[Tensor], samples: int) -> list[Scores]:
    """Return loss and reconstruction error of each member, from their sums over parts of the samples."""
    means = (torch.stack(list(sums)).sum(0) / samples).tolist()
    return [{"loss": loss, "reconstruction_error": error} for loss, error in means]


def _stack_networks(models: Sequence[Model], features: int, outputs: int, like: Tensor) -> StackedMLP | None:
    """Return models as stacked dense layers; None for modules."""
    networks = [model.network for model in models if isinstance(model.network, Network)]
    return StackedMLP(networks, features, outputs, like) if networks else None


def _stack_modules(models: Sequence[Model], shape: tuple[int, ...], like: Tensor) -> StackedSequential | StackedModules:
    modules = [model.network for model in models if isinstance(model.network, nn.Module)]
    if is_sequential(modules[0]):
        return StackedSequential(modules, like)
    by_layer = any(model.member.config.layer_learning_rate_decay != 1 for model in models)
    return StackedModules(modules, shape, like.device, by_layer=by_layer)


def _network(config: TrialConfig, module: nn.Module) -> Network:
    """Return the shape of a dense module, and the names of its tensors."""
    linear = tuple(name for name, part in module.named_modules() if isinstance(part, nn.Linear))
    norm = tuple(name for name, part in module.named_modules() if isinstance(part, nn.BatchNorm1d))
    widths = config.hidden_widths
    latent = len(widths) // 2 if config.reconstructs else None  # the layer without activation and dropout
    activations = tuple("linear" if layer == latent else config.activation for layer in range(len(widths)))
    dropouts = tuple(0.0 if layer == latent else config.dropout for layer in range(len(widths)))
    return Network(widths, activations, dropouts, linear, norm)


def _stack_key(model: Model) -> tuple[Hashable, ...]:
    """Return a key that is equal for models of one stack, and sorts."""
    config, network = model.member.config, model.network
    common = optimizer_family(config), config.loss
    if isinstance(network, nn.Module):
        return "modules", *common, repr(structure_of(network))
    return "dense", *common, bool(network.norm), -(-max(network.widths, default=0) // CLASS)


def _sort_key(model: Model) -> tuple[object, ...]:
    """Return the sort key in a stack: deepest first; equal activations and optimizer settings side by side."""
    config, network = model.member.config, model.network
    settings = config.learning_rate, config.schedule, config.epochs, config.beta1, config.beta2, config.weight_decay
    more = config.epsilon, config.final_rate, config.warmup, config.layer_learning_rate_decay
    depth = len(network.widths) if isinstance(network, Network) else 0
    return -depth, config.activation, *settings, *more
