"""Stack: models that are computed by the same operations, with their losses, optimizer, record and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from hpo.config import registry
from hpo.training.batch_group import BatchGroup
from hpo.training.member import Member, Weights
from hpo.training.optimizers import has_layer_rates
from hpo.training.precision import compute_type
from hpo.training.stacked.averaging import exchange_weights, find_averages, make_average
from hpo.training.stacked.batches import BatchChoice, Feed, StackBatch
from hpo.training.stacked.losses import ReconstructionLoss, StackLoss, make_stack_loss, weigh_columns
from hpo.training.stacked.mlp import Network, StackedMLP
from hpo.training.stacked.modules import StackedModules
from hpo.training.stacked.noise import keep_generators, noise_key, noise_seed
from hpo.training.stacked.optimizers import make_stacked_optimizer
from hpo.training.stacked.optimizers.base import StackedOptimizer, first_members, list_weights
from hpo.training.stacked.optimizers.state import load_state, read_state
from hpo.training.stacked.records import ReconstructionRecord, StackRecord
from hpo.training.stacked.sequential import StackedSequential, is_sequential
from hpo.training.stacked.step_graph import StepGraph, find_recorder

__all__ = ["Model", "Stack"]


@dataclass
class Model:
    """Member with the whole state of its training.

    Attributes:
        member: the trial.
        network: its shape, or its module where that is more than dense layers of numbers.
        weights: its module's state dict, running statistics included.
        feed: which batches it sees; None where all members see the same.
        slots: the state of its optimizer, and averages of its weights; see `read_state`. Empty before the first step.
        steps: how many its optimizer has done.
        structure: equal for modules that one stack can hold.
    """

    member: Member
    network: Network | nn.Module
    weights: Weights
    feed: Feed | None = None
    slots: dict[str, Weights] = field(default_factory=dict)
    steps: int = 0
    structure: int = 0


class Stack:
    """Stack of models that are trained by the same operations: dense networks, or modules of any kind.

    Attributes:
        models: in the order of the stack; their tensors are the initial ones, not those in training.
        normalised: true with batch normalisation.
        dense: the stacked models.
        augment: changes each training batch, of models of the user's own; see `hpo.config.registry.model`.
        loss: of the outputs.
        record: of the epoch's steps, outside of any graph.
        dimensions: of a sample.
        streams: of each model's batches; empty where all members of the learner see the same.
    """

    def __init__(
        self,
        models: Sequence[Model],
        shape: tuple[int, ...],
        outputs: int,
        device: torch.device,
        *,
        record_steps: bool,
        graph: bool = True,
    ) -> None:
        self.models = list(models)
        self.dimensions = len(shape)
        self.streams = [model.feed.stream for model in models if model.feed is not None]
        configs = [model.member.config for model in models]
        like = next(iter(models[0].weights.values())).new_empty(0, device=device)
        features = math.prod(shape)
        self.augment = registry.models.get(configs[0].model).augment
        self.dense = _stack_networks(models, features, outputs, like) or _stack_modules(models, shape, like)
        like = self.dense.output  # a module's first tensor may be a buffer of whole numbers
        self._noise_keys = [noise_key(config) for config in configs]
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
        self._average = make_average(configs, self.dense.parameters)
        self._gradients = [torch.empty_like(each) for each in self.dense.parameters] if self._update else []
        self._group = BatchGroup(configs[0]) if configs[0].batches_per_step > 1 else None
        recorder = find_recorder(device) if graph and self.augment is None and self._group is None else None
        self._graph = StepGraph(self._compute, self.dense.noise, recorder, self.dense.memory) if recorder else None
        for index, model in enumerate(models):
            self.load(index, model.weights, model.slots, model.steps)

    def begin_epoch(
        self,
        rates: np.ndarray[tuple[int, int], np.dtype[np.float64]],
        seeds: Sequence[int],
        choice: BatchChoice,
    ) -> None:
        """Prepare for an epoch.

        Args:
            rates: learning rates of the epoch's steps, (members, steps).
            seeds: of each member's noise.
            choice: of the members' batches.
        """
        self._choice = choice
        self.record.begin(own=choice.own)
        self.dense.noise.begin([noise_seed(key, seed) for key, seed in zip(self._noise_keys, seeds, strict=True)])
        self._rates = self.dense.output.new_tensor(rates.T)[..., None, None]
        self._step = 0

    def _augment(self, x: Tensor) -> Tensor:
        """Return each member's samples of a batch (n, inputs), changed as its model says: (members, n, inputs)."""
        assert isinstance(self.dense, StackedModules)
        assert self.augment is not None
        samples = x[..., : self.dense.features].reshape(*x.shape[:-1], *self.dense.shape)
        own = [samples[index] if x.ndim == 3 else samples for index in range(len(self.models))]
        changed = []
        for each, model, seed in zip(own, self.models, self.dense.noise.next_seeds(), strict=True):
            torch.manual_seed(seed)
            changed.append(self.augment(each.clone(), model.member.config))
        return torch.stack(changed).flatten(2)

    def target(self, y: Tensor) -> Tensor:
        """Return what gradients need of a batch's labels; see `StackLoss.target`."""
        assert isinstance(self.loss, StackLoss)
        return self.loss.target(y)

    def step(self, given: StackBatch) -> None:
        """Do one step on a batch, of which the stack takes what its members see."""
        if given.shape is None:
            return self._take_step(given)
        assert isinstance(self.dense, StackedModules)
        before = self.dense.shape
        self.dense.take_shape(given.shape)
        try:
            return self._take_step(given)
        finally:
            self.dense.take_shape(before)

    def _take_step(self, given: StackBatch) -> None:
        batch, rate = self._choice.choose(given), self._rates[self._step]
        if self.augment is not None:
            with keep_generators(batch.x.device):
                batch = batch._replace(x=self._augment(batch.x))
        self.dense.tracked += 1
        if self._group is not None:
            outputs = self._accumulate(self._group, batch, rate)
        else:
            if self._update is not None:
                self._update.advance()
            usual = batch.valid is None and batch.shape is None
            compute = self._graph.step if self._graph is not None and usual else self._compute
            outputs = compute(batch, rate)
            if self._average is not None:
                self._average.step()
        self.record.add(outputs, batch.y, batch.target, batch.w, batch.valid)
        self._step += 1

    def end_epoch(self) -> None:
        """End an epoch: do the step of the batches that are left, fewer than a group has, and average the weights."""
        if self._group is not None and self._group.begun:
            self._end_group(self._group)
        if self._average is not None:
            self._average.end_epoch()

    def exchange_weights(self) -> AbstractContextManager[None]:
        """Have the weights to evaluate in the place of those in training for a while, where they differ."""
        return exchange_weights(self.dense.parameters, find_averages(self._update, self._average))

    def _compute(self, batch: StackBatch, rate: Tensor) -> Tensor:
        """Do a step of all models at learning rates (members, 1, 1); return the outputs from before it.

        All that a step counts on the host is done before: a graph replays the operations, and nothing else.
        """
        outputs = self.dense.forward(batch.x, train=True)
        if self._update is None:
            down = self._gradient(outputs, batch, rate / -batch.counts)
            self.dense.backward(batch.x, down, self.dense.parameters, add=True)
        else:
            gradient = self._gradient(outputs, batch, 1 / batch.counts)
            self.dense.backward(batch.x, gradient, self._gradients, add=False)
            with self._keep_idle(self._update):
                self._update.step(self._gradients, rate)
        return outputs

    def _accumulate(self, group: BatchGroup, batch: StackBatch, rate: Tensor) -> Tensor:
        """Add a batch to the gradients of its group, with which the weights change; return the outputs from before."""
        outputs = self.dense.forward(batch.x, train=True)
        self.dense.backward(batch.x, self._gradient(outputs, batch, group.share(1)), self._gradients, add=group.begun)
        group.add(batch.counts)
        self._rate = rate
        if group.whole:
            self._end_group(group)
        return outputs

    def _end_group(self, group: BatchGroup) -> None:
        """Do the optimizer's step along the mean gradient of the batches so far."""
        assert self._update is not None
        correction = group.correction
        for gradient in self._gradients:
            gradient.mul_(first_members(correction, gradient) if isinstance(correction, Tensor) else correction)
        group.clear()
        self._update.advance()
        with self._keep_idle(self._update):
            self._update.step(self._gradients, self._rate)
        if self._average is not None:
            self._average.step()

    def _keep_idle(self, update: StackedOptimizer) -> AbstractContextManager[None]:
        """Return the context of the optimizer's step; of dense layers and sequences all parameters have gradients."""
        return self.dense.keep_idle(list_weights(update)) if isinstance(self.dense, StackedModules) else nullcontext()

    def _gradient(self, outputs: Tensor, batch: StackBatch, scale: Tensor | float) -> Tensor:
        """Return the gradient by the outputs (members, outputs, n), weighted; zero where samples do not count."""
        gradient = self.loss.gradient(outputs, batch.target, scale)
        if batch.w is not None:
            gradient.mul_(weigh_columns(batch.w, batch.y))
        return gradient if batch.valid is None else gradient.masked_fill_(~batch.valid.unsqueeze(1), 0)

    def model(self, index: int) -> Model:
        """Return the model at that place, with copies of its tensors in training.

        The graph is dropped, so that one who goes on from here and one who has loaded the model do the same.
        """
        self._drop_graph()
        slots = read_state([self._update, self._average], index, self.dense.views)
        weights = {name: view.clone() for name, view in self.weights(index).items()}
        return replace(
            self.models[index], weights=weights, slots=slots, steps=self._update.steps if self._update else 0
        )

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.drop()

    def averaged_weights(self, index: int) -> Weights:
        """Return what a member is evaluated with, as its module's state dict; they may be views."""
        averages = find_averages(self._update, self._average)
        return self.weights(index) | ({} if averages is None else self.dense.views(index, averages))

    def weights(self, index: int) -> Weights:
        """Return a member's part of the tensors in training, as its module's state dict; they are views."""
        views = {**self.dense.views(index, self.dense.parameters), **self.dense.statistics(index)}
        return {name: views[name] for name in self.models[index].weights}

    def load(self, index: int, weights: Weights, slots: dict[str, Weights], steps: int) -> None:
        """Load the weights of a member, its optimizer's state with any averages, and the number of its steps."""
        self._drop_graph()
        for name, view in self.weights(index).items():
            view.copy_(weights[name])
            if name.endswith("num_batches_tracked"):
                self.dense.tracked = int(weights[name])
        load_state([self._update, self._average], index, self.dense.views, slots)
        if steps and self._update is not None:
            self._update.steps = steps


def _stack_networks(models: Sequence[Model], features: int, outputs: int, like: Tensor) -> StackedMLP | None:
    """Return models as stacked dense layers; None for modules."""
    networks = [model.network for model in models if isinstance(model.network, Network)]
    return StackedMLP(networks, features, outputs, like) if networks else None


def _stack_modules(models: Sequence[Model], shape: tuple[int, ...], like: Tensor) -> StackedSequential | StackedModules:
    modules = [model.network for model in models if isinstance(model.network, nn.Module)]
    augmented = registry.models.get(models[0].member.config.model).augment is not None
    precision = compute_type(models[0].member.config)
    if is_sequential(modules[0]) and not augmented and precision is None:
        return StackedSequential(modules, like)
    by_layer = any(has_layer_rates(model.member.config) for model in models)
    return StackedModules(modules, shape, like.device, by_layer=by_layer, precision=precision)
