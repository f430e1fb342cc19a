"""Learner of many models at once, and of one where that is faster too."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import ExitStack
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpo.config.model_size import count_outputs, is_dense, resolve_width
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError
from hpo.training.data import TrainBatch
from hpo.training.learner import EvalResult, Rates
from hpo.training.member import Member, Scores, State, Weights
from hpo.training.models import parameter_count
from hpo.training.precision import compute_type
from hpo.training.schedules import rate_key
from hpo.training.stacked.batches import BatchChoice, Feed, PaddedSamples, StackBatch
from hpo.training.stacked.evaluation import evaluate_own, evaluate_shared
from hpo.training.stacked.mlp import Network
from hpo.training.stacked.modules import StackedModules
from hpo.training.stacked.optimizers import optimizer_family
from hpo.training.stacked.stack import Model, Stack
from hpo.training.stacked.structure import number_structures
from hpo.training.transfer import build_initial_model

__all__ = ["StackedLearner", "is_stacked"]

# Steps that one stack does before the next stack's turn: its weights and its optimizer's state then stay in the
# processor's cache.
BLOCK = 8
# Members with the same batches that are a stack apart from those with others: one product of a batch and the weights of
# all beats batched ones, but a further stack has its own calls.
SHARING = 8
# Models whose widest layers are within the same this many units are padded to one size. The grid of 2,700's 50 widths,
# depths and optimizers, per model and step at batch 4, 32 and 128: 95, 147 and 378 us; unpadded 118, 160 and 382.
CLASS = 25


def is_stacked(state: State) -> bool:
    """Return whether a state is that of a member of a stack, and not of a module alone."""
    return "slots" in state


class StackedLearner:
    """Learner of several models. Those of one optimizer family and about one size are computed by the same operations.

    Where members have batches of their own, several with the same batches still share them: as a stack of their own if
    they are at least `SHARING`.

    Args:
        members: the trials, equal in `hpo.config.cohort_key.stack_key`, each with its own number.
        shape: of one sample.
        classes: of the data.
        device: where the models are trained.
        record_steps: whether `step_losses` will be asked for.
        feeds: of each member, where not all see the same batches.
        graph: whether steps may be recorded, where the device can; see `hpo.training.stacked.step_graph`.
    """

    def __init__(
        self,
        members: Sequence[Member],
        shape: tuple[int, ...],
        classes: int,
        device: torch.device,
        *,
        record_steps: bool = False,
        feeds: Sequence[Feed] | None = None,
        graph: bool = True,
    ) -> None:
        self._device, self._record_steps, self._graph = device, record_steps, graph
        self._shape, self._features, self._classes = tuple(shape), math.prod(shape), classes
        self._reconstructs = members[0].config.reconstructs
        self.members = list(members)
        models: list[Model] = []
        given: Sequence[Feed | None] = feeds or [None] * len(members)
        for member, feed in zip(members, given, strict=True):
            module = build_initial_model(member.config, shape, classes)
            member.parameter_count = parameter_count(module)
            dense = is_dense(member.config, shape)
            network = _network(resolve_width(member.config, shape, classes), module) if dense else module
            models.append(Model(member, network, module.state_dict(), feed))
        general = [(model, model.network) for model in models if isinstance(model.network, nn.Module)]
        for (model, _), number in zip(general, number_structures([module for _, module in general]), strict=True):
            model.structure = number
        self._build_stacks(models)
        like = self._stacks[0].dense.output
        if members[0].config.integers:  # float32 does not hold every code
            like = like.new_empty(0, dtype=torch.int64)
        self._padded = PaddedSamples(self._shape, like, BLOCK)
        self._pending: list[StackBatch] = []

    def _build_stacks(self, models: Sequence[Model]) -> None:
        """Group models into stacks."""
        ordered = sorted(models, key=lambda model: (_stack_key(model), _sort_key(model)))
        groups = [list(group) for _, group in groupby(ordered, key=_stack_key)]
        self._place([self._make_stack(part) for group in groups for part in _split_by_stream(group)])

    def _compact(self) -> None:
        """Build the stacks anew that members have left, with less padding; the others stay.

        It costs about as much as one step of those that stay, and each step then saves the part of those that left: it
        has paid after 1 to 12 steps in cohorts of 8 and 32 networks of mixed widths.
        """
        live = {member.number for member in self.members}
        stacks: list[Stack] = []
        for stack in self._stacks:
            kept = [index for index, model in enumerate(stack.models) if model.member.number in live]
            if len(kept) == len(stack.models):
                stacks.append(stack)
            elif kept:
                models = [stack.model(index) for index in kept]
                stacks += [self._make_stack(part) for part in _split_by_stream(models)]
        self._place(stacks)

    def _place(self, stacks: Sequence[Stack]) -> None:
        self._stacks = list(stacks)
        self._places = {
            model.member.number: (stack, index) for stack in stacks for index, model in enumerate(stack.models)
        }

    def _make_stack(self, models: Sequence[Model]) -> Stack:
        outputs = count_outputs(models[0].member.config, self._shape, self._classes)
        settings = {"record_steps": self._record_steps, "graph": self._graph}
        return Stack(models, self._shape, outputs, self._device, **settings)

    def begin_epoch(
        self,
        samples: int,  # noqa: ARG002  what is recorded has a size of its own
        rates: Rates,
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Prepare for an epoch; see `Learner`. Dropped members leave their stacks here."""
        self._pending.clear()
        if len(self.members) < len(self._places):
            self._compact()
        numbers = [member.number for member in self.members]
        row_of = dict(zip(numbers, rates, strict=True))
        seed_of = dict(zip(numbers, seeds or [torch.initial_seed()] * len(numbers), strict=True))
        streams = sorted({stream for stack in self._stacks for stream in stack.streams})
        for stack in self._stacks:
            choice = [streams.index(stream) for stream in stack.streams] if len(streams) > 1 else None
            own = [model.member.number for model in stack.models]
            stack.begin_epoch(
                np.array([row_of[number] for number in own]),
                [seed_of[number] for number in own],
                BatchChoice(choice, self._device),
            )

    def set_layout(self, layout: torch.memory_format) -> None:
        """Set the layout in which stacks of modules read pictures; see `StackedModules`."""
        for stack in self._stacks:
            if isinstance(stack.dense, StackedModules):
                stack.dense.layout = layout

    def _place_of(self, member: Member) -> tuple[Stack, int]:
        return self._places[member.number]

    def room(self, samples: int) -> Tensor:
        """Return memory for the samples of the next step; see `Learner`."""
        return self._padded.room(samples, len(self._pending))

    @torch.no_grad()
    def step(self, x: Tensor, y: Tensor, w: Tensor | None = None, sizes: Sequence[int] | None = None) -> None:
        """Do one optimizer step; see `Learner`.

        With several stacks the step is postponed until `BLOCK` steps are pending, or a result is needed.

        Args:
            x, y, w: of all members; where these have batches of their own, of each stream of members in training, in
                ascending order: (streams, n, …).
            sizes: how many samples of each stream count, the first ones; None where all do.
        """
        first = x.ndim - len(self._shape)
        if min(sizes or [x.shape[first - 1]]) == 1 and any(stack.normalised for stack in self._stacks):
            raise ConfigError("batch_norm = true: a batch of one sample has no statistics; use another batch_size")
        own = self._find_shape(x.shape[first:])
        padded = self._padded.pad(x, len(self._pending)) if own is None else F.pad(x.flatten(first), (0, 1), value=1)
        target = x.flatten(first).mT.contiguous() if self._reconstructs else self._stacks[0].target(y)
        self._pending.append(StackBatch(padded, y, target, w, sizes, shape=own))
        if len(self._pending) >= BLOCK or len(self._stacks) == 1:
            self._run_pending_steps()

    def _find_shape(self, shape: Sequence[int]) -> tuple[int, ...] | None:
        """Return the shape of a batch's samples where it is another than the data's; None where it is that one."""
        if (found := tuple(shape)) == self._shape:
            return None
        if not all(isinstance(stack.dense, StackedModules) for stack in self._stacks):
            raise ConfigError(f"a batch has samples of shape {found}, and the validation samples have {self._shape}")
        return found

    def _run_pending_steps(self) -> None:
        """Do the pending steps, stack by stack."""
        for stack in self._stacks:
            for batch in self._pending:
                stack.step(batch)
        self._pending.clear()

    @torch.no_grad()
    def end_epoch(self) -> list[Scores]:
        """Return the mean scores of the epoch's steps; see `Learner`."""
        self._run_pending_steps()
        for stack in self._stacks:
            stack.end_epoch()
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

    def measure_statistics(self, batches: Callable[[], Iterable[TrainBatch]]) -> None:
        """Do nothing: models with averaged weights and batch normalisation train alone; see `Learner`."""

    def evaluate(self, x: Tensor, y: Tensor, *, outputs: bool = True) -> list[EvalResult]:
        """Evaluate each member; see `Learner`."""
        return self.evaluate_each([(x, y)] * len(self.members), outputs=outputs)

    @torch.no_grad()
    def evaluate_each(self, samples: Sequence[tuple[Tensor, Tensor]], *, outputs: bool = True) -> list[EvalResult]:
        """Evaluate each member on samples x (N, *shape) and y of its own; see `Learner.evaluate`."""
        with ExitStack() as exchanged:
            for stack in self._stacks:
                exchanged.enter_context(stack.exchange_weights())
            results = self._evaluate_parts(samples, outputs=outputs)
        return [results[member.number] for member in self.members]

    def _evaluate_parts(self, samples: Sequence[tuple[Tensor, Tensor]], *, outputs: bool) -> dict[int, EvalResult]:
        """Evaluate each member on its samples, with the weights that are there; return the results by number."""
        parts = {member.number: part for member, part in zip(self.members, samples, strict=True)}
        results: dict[int, EvalResult] = {}
        shared: dict[int, list[Stack]] = {}  # by the samples that all of a stack's members have
        for stack in self._stacks:
            own = [parts.get(model.member.number, samples[0]) for model in stack.models]
            if len({id(x) for x, _ in own}) > 1:
                found = evaluate_own(stack, self._padded, own, outputs=outputs)
                results |= _by_number(stack, found)
            else:
                shared.setdefault(id(own[0][0]), []).append(stack)
        for stacks in shared.values():
            x, y = next(parts[model.member.number] for model in stacks[0].models if model.member.number in parts)
            for stack, found in zip(stacks, evaluate_shared(stacks, self._padded, x, y, outputs=outputs), strict=True):
                results |= _by_number(stack, found)
        return results

    def weights(self, member: Member) -> Weights:
        """Copy a member's weights; see `Learner`."""
        stack, index = self._place_of(member)
        return {name: value.to("cpu", copy=True) for name, value in stack.averaged_weights(index).items()}

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
        noise = stack.dense.noise.state(index)
        return {"weights": model.weights, "slots": model.slots, "steps": model.steps, "record": record, "noise": noise}

    @torch.no_grad()
    def load_state(self, member: Member, state: State) -> None:
        """Load a member's state; see `Learner`."""
        stack, index = self._place_of(member)
        stack.load(index, state["weights"], state["slots"], state["steps"])
        if state["record"] is not None:
            stack.record.load(index, state["record"])
        if state.get("noise") is not None:
            stack.dense.noise.load(index, state["noise"])

    def drop(self, member: Member) -> None:
        """Drop a member; see `Learner`."""
        self.members.remove(member)


def _by_number(stack: Stack, results: Sequence[EvalResult]) -> dict[int, EvalResult]:
    return {model.member.number: each for model, each in zip(stack.models, results, strict=True)}


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
    config, network, last = model.member.config, model.network, 0 if model.feed is None else model.feed.last
    common = optimizer_family(config), str(config.averaging), config.loss
    if isinstance(network, nn.Module):
        # What fills up a batch may not meet its samples: in batch normalisation, or whatever a module does.
        scaling = config.input_scaling, str(config.numeric_scaling)  # which decide the edges of bins
        return "modules", *common, *scaling, last, str(compute_type(config)), model.structure
    norm = bool(network.norm)
    return "dense", *common, norm, last * norm, -(-max(network.widths, default=0) // CLASS)


def _split_by_stream(models: Sequence[Model]) -> list[list[Model]]:
    """Return models by their batches where many share them; the few others are one stack, each with its own."""
    by_stream: dict[int | None, list[Model]] = {}
    for model in models:
        by_stream.setdefault(model.feed.stream if model.feed else None, []).append(model)
    if len(by_stream) == 1:
        return [list(models)]
    many = [group for group in by_stream.values() if len(group) >= SHARING]
    few = [model for model in models if len(by_stream[model.feed.stream if model.feed else None]) < SHARING]
    return [*many, few] if few else many


def _sort_key(model: Model) -> tuple[object, ...]:
    """Return the sort key in a stack: deepest first; equal activations and optimizer settings side by side."""
    config, network = model.member.config, model.network
    settings = config.learning_rate, config.schedule, config.epochs, config.beta1, config.beta2, config.weight_decay
    more = config.epsilon, config.final_rate, config.warmup, config.layer_learning_rate_decay, config.head_rate_factor
    depth = len(network.widths) if isinstance(network, Network) else 0
    return -depth, config.activation, *settings, *more, repr(rate_key(config))
