"""Check of own models before they are stacked: computed both ways in float64, and measured.

A module may do what no stack can: keep counts in Python, branch on the numbers of a batch, draw random numbers of its
own, call hooks. So the first batch goes through a stack and through the modules alone, and where anything differs, or a
stack is no faster, the model is trained alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpo.config import registry
from hpo.config.cohort_key import AVERAGES_ALONE, is_measured, stack_key, used_values, why_unstackable
from hpo.config.parameter import Parameter, Value
from hpo.config.trial_config import TrialConfig, all_parameters
from hpo.errors import ConfigError
from hpo.training.data import Data
from hpo.training.memory import is_out_of_memory
from hpo.training.models import build_model
from hpo.training.precision import compute_type
from hpo.training.process_state import contain_user_code
from hpo.training.stacked.gain import Clock, Timing, change_seed, measure_gain
from hpo.training.stacked.member_functions import Given, member_functions
from hpo.training.stacked.modules import StackedModules, flatten_samples, is_normalised
from hpo.training.stacked.sequential import StackedSequential, is_sequential
from hpo.training.stacked.structure import attributes_of, number_structures, structure_of
from hpo.training.stacked.user_values import name_change, read_user_values
from hpo.utils.text import first_line, shorten, summarize_error

__all__ = [
    "Timing",
    "find_difference",
    "find_differing_part",
    "find_parameter_obstacle",
    "find_structure",
    "measure_gain",
    "warm_up",
    "why_alone",
    "why_modules_alone",
]

AnyStack = StackedModules | StackedSequential
CLOSE = 1e-9  # of float64, as a share of the largest number
CLOSE_SINGLE = 1e-4  # of float32
TYPES = re.compile(r"dtype|scalar type|did not match|type mismatch", re.IGNORECASE)  # errors of types that differ
SAMPLES = 16  # that are computed both ways
# Of torch's paragraphs, what they mean here.
MEANINGS = {
    "escaped from inside a function being vmapped": "it keeps a tensor for later, or computes a part of itself twice, "
    "as torch.utils.checkpoint does",
    "use an autograd.Function with functorch": "its autograd.Function has no rule for torch.func.vmap "
    "(generate_vmap_rule)",
    "Tensor.requires_grad_()": "it calls requires_grad_ while it computes",
    "that doesn't have storage": "it takes the numbers of a batch out of torch (.numpy() and the like)",
    "argument #1 'indices'": "its samples are real numbers, and it takes whole ones; register it with integers=True",
    "dynamic shape": "the shape of what it computes depends on the numbers of a batch (a mask, nonzero and the like)",
}
GAIN = 1.1  # times as fast as one at a time, below which a stack is not worth it
_verdicts: dict[Hashable, str | None] = {}  # by structure
_by_values: dict[Hashable, str | None] = {}  # by the values that a module is built from


def warm_up() -> None:
    """Have torch import what it imports for the first optimizer: a second, which is not the check of any model."""
    torch.optim.Adam([nn.Parameter(torch.zeros(1))])


def why_alone(config: TrialConfig, data: Data, clock: Clock | None = None) -> str | None:
    """Return in one phrase why a configuration is trained alone, or None if it is trained in stacks.

    Models of the user's own, and convolutional ones, are checked and measured on the first batch, once for each
    structure, batch size and device.

    Args:
        config: the configuration.
        data: prepared for it.
        clock: returns seconds that only grow; by default of this process on a CPU, which others may be using too.
    """
    if stack_key(config, data.device.type) is None:
        return why_unstackable(config, data.device.type)
    entry = registry.models.get(config.model)
    if (
        not is_measured(config) or entry.loop
    ):  # most of ours are tested, and a loop's modules are checked where it builds them
        return None
    if config.averages_weights and is_normalised(build_model(config, data.shape, data.classes)):
        return AVERAGES_ALONE
    settings = entry.target, config.batch_size, config.task, config.loss, data.shape, data.classes, data.device
    values = (*used_values(config).items(), *settings)
    if values not in _by_values:
        try:
            first, second = (build_model(change_seed(config, i), data.shape, data.classes) for i in range(2))
        except ConfigError as error:  # training will raise it again, and fail the trial
            return first_line(error).removeprefix(f"model '{config.model}': ")
        if (found := find_differing_part(first, second)) is not None:
            return found
        key = structure_of(first), compute_type(config), settings
        if key not in _verdicts:
            _verdicts[key] = _check(config, first, data, clock)
        _by_values[values] = _verdicts[key]
    return _by_values[values]


def _check(config: TrialConfig, module: nn.Module, data: Data, clock: Clock | None) -> str | None:
    """Return why the structure of a configuration's module is trained alone."""
    other = change_seed(config, 1)
    changes: list[dict[str, Value | None]] = [{}, *({name: value} for name, value in _vary(config))]
    configs = [config, *(other.model_copy(update=change) for change in changes)]
    builds = [partial(build_model, each, data.shape, data.classes) for each in configs]
    modules, changed = _build_all(builds, [registry.models.get(config.model).load()])
    if changed is not None:
        return f"its function changes {changed} as it builds a model"
    alike = [change for number, change in enumerate(changes, 1) if _stacks_with(module, modules.get(number))]
    joint = other.model_copy(update={name: value for change in alike for name, value in change.items()})
    builds = [builds[0], partial(build_model, joint, data.shape, data.classes)]
    pair, _ = _build_all(builds, [])
    if not _stacks_with(module, pair.get(1)):
        builds[1] = partial(build_model, other, data.shape, data.classes)
        pair[1] = builds[1]()
    x, y = _first_batch(config, data)
    found = why_modules_alone([*pair.values()], x, data.shape, builds, compute_type(config))
    return found or _why_slower(config, data, x, y, clock)


def _stacks_with(first: nn.Module, other: nn.Module | None) -> bool:
    return other is not None and number_structures([first, other]) == [0, 0]


@contain_user_code()
def _build_all(
    builds: Sequence[Callable[[], nn.Module]], functions: Sequence[Callable[..., Any]]
) -> tuple[dict[int, nn.Module], str | None]:
    """Return the modules by the numbers of their builds, without those that fail; and what a build has changed."""
    first = builds[0]()
    modules, before = {0: first}, read_user_values([first], functions)
    for number, build in enumerate(builds[1:], 1):
        with suppress(Exception):  # such as a width that its heads do not divide
            modules[number] = build()
        if (changed := name_change(before, read_user_values([first], functions))) is not None:
            return modules, changed
    return modules, None


def _vary(config: TrialConfig) -> Iterator[tuple[str, Value | None]]:
    """Yield another value of each parameter that a configuration's model is built from."""
    table = all_parameters([str(config.model)], config._models)
    for name, value in used_values(config).items():
        if (changed := _change(value, table[name])) != value:
            yield name, changed


def _change(value: Value | None, parameter: Parameter) -> Value | None:
    """Return another value near one, or the value itself where there is none."""
    if parameter.choices:
        return next((each for each in parameter.choices if each != value), value)
    if isinstance(value, bool):
        return not value
    low, high = parameter.low, parameter.high
    if isinstance(value, int):
        return value - 1 if low is None or value > low else value if value == high else value + 1
    if isinstance(value, float):
        return value / 2 if value else min(0.1, 0.1 if high is None else high / 2)
    return value


def find_structure(config: TrialConfig, data: Data) -> Hashable:
    """Return a key that is equal for configurations whose modules one stack can hold."""
    return structure_of(build_model(config, data.shape, data.classes)), compute_type(config)


def find_differing_part(first: nn.Module, second: nn.Module) -> str | None:
    """Return which part of two modules of one configuration keeps them out of one stack."""
    if structure_of(first) == structure_of(second):
        return None
    others = dict(second.named_modules(remove_duplicate=False))
    for name, part in first.named_modules(remove_duplicate=False):
        other, place = others.get(name), f" ({name})" if name else ""
        if other is not None and type(part) is not type(other) and type(part).__qualname__ == type(other).__qualname__:
            return f"its class {type(part).__name__} is made anew for each trial; define it at the top of its module"
        if other is None or type(part) is not type(other):
            break
        here, there = dict(attributes_of(part)), dict(attributes_of(other))
        for attribute in [each for each in here if here[each] != there.get(each)]:
            kind = type(getattr(part, attribute)).__name__
            return f"{type(part).__name__}{place} holds a {kind} of its own as {attribute}"
    return "two models of one configuration are not built alike"


def _first_batch(config: TrialConfig, data: Data) -> tuple[Tensor, Tensor]:
    """Return samples (batch_size, *shape) and their labels, from validation where the data set gives batches."""
    x, y = (data.x_val, data.y_val) if data.streams else (data.x_train, data.y_train)
    places = torch.arange(config.batch_size, device=x.device) % len(x)
    return x[places], y[places]


@contain_user_code()
def why_modules_alone(
    modules: Sequence[nn.Module],
    x: Tensor,
    shape: tuple[int, ...],
    builds: Sequence[Callable[[], object]] = (),
    precision: torch.dtype | None = None,
) -> str | None:
    """Return in one phrase why modules cannot be stacked, computing samples x (n, *shape) both ways; None if they can.

    They are computed in float64; where a module makes tensors of another type, in float32, and less exactly.

    Args:
        modules: of equal structure; they are copied, a single one twice, with other numbers in the second.
        x: samples; at most 16 are used.
        shape: of one of them.
        builds: build them; each is called again before its module is computed alone, for what it leaves elsewhere.
        precision: of the products, where that is not the weights' own; a stack is then computed in it once.
    """
    if (found := next(_find_obstacles(modules[0]), None)) is not None:
        return found
    before = read_user_values(modules)
    try:
        found = _compare_modules(modules, x, shape, builds, torch.float64)
        if found is None and precision is not None:
            _compute_in(precision, modules, x, shape)
    except Exception as error:  # a model of the user's can raise anything
        if is_out_of_memory(error):
            raise
        found = _explain(error)
    changed = name_change(before, read_user_values(modules))
    return found if changed is None else f"it changes {changed} as it computes"


def _compare_modules(
    modules: Sequence[nn.Module],
    x: Tensor,
    shape: tuple[int, ...],
    builds: Sequence[Callable[[], object]],
    dtype: torch.dtype,
) -> str | None:
    """Return what differs, computing in a type, which the tensors that a module makes have by default too."""
    copies = [deepcopy(module).cpu().to(dtype) for module in modules]
    if len(copies) == 1:
        copies.append(_copy_varied(copies[0]))
    given = x[:SAMPLES].cpu()
    if given.is_floating_point():  # whole numbers, such as token ids, stay what they are
        given = given.to(dtype)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return find_difference(copies, given, shape, builds)
    except RuntimeError as error:
        if dtype == torch.float32 or not TYPES.search(str(error)):
            raise
    finally:
        torch.set_default_dtype(default)
    return _compare_modules(modules, x, shape, builds, torch.float32)


def _compute_in(precision: torch.dtype, modules: Sequence[nn.Module], x: Tensor, shape: tuple[int, ...]) -> None:
    """Compute a step of a stack under autocast, for which torch has fewer rules."""
    stack = StackedModules(modules, shape, x.device, by_layer=False, precision=precision)
    load_modules(stack, modules)
    stack.noise.begin(range(len(modules)))
    flat = _flatten(x[:SAMPLES], shape)
    outputs = stack.forward(flat, train=True)
    stack.backward(flat, torch.ones_like(outputs), [torch.empty_like(each) for each in stack.parameters], add=False)


def _copy_varied(module: nn.Module) -> nn.Module:
    """Return a copy of a module with other numbers in it."""
    copy, generator = deepcopy(module), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in copy.parameters():
            if parameter.is_floating_point():
                noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.mul_((0.5 + noise).to(parameter))
    return copy


def _find_obstacles(module: nn.Module) -> Iterator[str]:
    """Yield what is known of a module without computing it."""
    for name, part in module.named_modules():
        place = _name_part(name, part)
        hooks = part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks
        if any(hooks):
            yield f"{place} has hooks"
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats and part.momentum is None:
            yield f"{place} with momentum=None reads its count of batches"
        if isinstance(part, nn.RNNBase) and part.proj_size:
            yield f"{place} has a proj_size, for which there is no stacked form"
    if (found := find_parameter_obstacle(module)) is not None:
        yield found


def _name_part(name: str, part: nn.Module) -> str:
    return f"{type(part).__name__}{f' ({name})' if name else ''}"


def find_parameter_obstacle(module: nn.Module) -> str | None:
    """Return what keeps a module's parameters out of a stack's tensors; None if nothing does.

    A stack holds the parameters of all its members in one tensor, has no parameters that hooks could be called of, and
    puts its own into the place of a module's, which a compiled one does not allow.
    """
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            return f"{_name_part(name, part)} is compiled by torch.jit"
    if not any(each.requires_grad for each in module.parameters()):
        return "it has nothing to train"
    types = dict[torch.dtype, str]()
    for name, parameter in module.named_parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            return f"its parameter {name} has hooks"
        if parameter.requires_grad:
            types.setdefault(parameter.dtype, name)
    complex_one = next((name for dtype, name in types.items() if dtype.is_complex), None)
    if complex_one is not None:
        return f"its parameter {complex_one} is complex"
    if len(types) > 1:
        listed = " and ".join(f"{str(dtype).removeprefix('torch.')} ({name})" for dtype, name in types.items())
        return f"its parameters are of several types: {listed}"
    return None


def find_difference(
    modules: Sequence[nn.Module], x: Tensor, shape: tuple[int, ...], builds: Sequence[Callable[[], object]] = ()
) -> str | None:
    """Return what differs between modules in a stack and alone: outputs, gradients, buffers, or what they leave behind.

    They go through a step on batches of their own and one on a batch that they share, in training and in evaluation,
    and with the same dropout masks. Both sides go along their gradients in between. Modules for which `is_sequential`
    holds do so once more in the stack by hand, which is the one that trains them.

    Args:
        modules: in float64, or float32, on the CPU; they are trained.
        x: samples, (n, *shape), of their type.
        shape: of a sample.
        builds: see `why_modules_alone`.
    """
    general = StackedModules(modules, shape, x.device, by_layer=False)
    before = _copy_unsaved(modules[0])
    found = _compare_stack(general, modules, x, shape, builds)
    after = _copy_unsaved(modules[0])
    if (changed := next((name for name, each in before.items() if not _close(after[name], each)), None)) is not None:
        return f"it changes its buffer {shorten(changed, quote=False)}, which no state dict holds (persistent=False)"
    if found is not None or not is_sequential(modules[0]):
        return found
    return _compare_stack(StackedSequential(modules, general.output.new_empty(0)), modules, x, shape, builds)


def _copy_unsaved(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the buffers that are no part of a module's state dict."""
    saved = module.state_dict().keys()
    return {name: each.clone() for name, each in module.named_buffers() if name not in saved}


def _compare_stack(
    stack: AnyStack,
    modules: Sequence[nn.Module],
    x: Tensor,
    shape: tuple[int, ...],
    builds: Sequence[Callable[[], object]],
) -> str | None:
    """Return what differs in a stack; see `find_difference`."""
    load_modules(stack, modules)
    stack.noise.begin(range(len(modules)))
    stack.noise.kept = []
    before = [structure_of(module) for module in modules]
    own = torch.stack([x.roll(index, 0) for index in range(len(modules))])
    for samples in (own, x):
        stack.noise.kept.clear()
        flat = _flatten(samples, shape)
        with _Generators() as generators:
            found = _compare_step(stack, modules, samples, flat, builds)
        if generators.moved:
            return "it draws random numbers of its own, other than by torch's dropout"
        if found is not None:
            return found
    if [structure_of(module) for module in modules] != before:
        return "it changes its own attributes while it computes"
    return None


class _Generators:
    """Global generators of random numbers, and whether anything has drawn from them in the meantime."""

    moved = False

    def __enter__(self) -> _Generators:
        self._before = self._states()
        return self

    def __exit__(self, *_: object) -> None:
        self.moved = self._states() != self._before

    @staticmethod
    def _states() -> tuple[object, ...]:
        return torch.get_rng_state().numpy().tobytes(), random.getstate(), repr(np.random.get_state(legacy=False))


def _flatten(samples: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return samples (…, n, *shape) as stacks read them: their features, and a one; see `PaddedSamples`."""
    return F.pad(flatten_samples(samples, shape), (0, 1), value=1)


def _compare_step(
    stack: AnyStack,
    modules: Sequence[nn.Module],
    samples: Tensor,
    flat: Tensor,
    builds: Sequence[Callable[[], object]],
) -> str | None:
    """Do a step in training and one evaluation, both ways; return what differs."""
    own = flat.ndim > 2
    stack.tracked += 1
    outputs = stack.forward(flat, train=True)
    by_outputs = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)
    gradients = [torch.empty_like(each) for each in stack.parameters]
    stack.backward(flat, by_outputs, gradients, add=False)
    for index, module in enumerate(modules):
        _build_again(builds, index)
        module.train().zero_grad()
        with member_functions(Given(stack.noise.kept or [], index)):
            alone = module(samples[index] if own else samples)
        if not _close(outputs.mT[index], alone):
            return "a stack gives other outputs"
        alone.backward(by_outputs.mT[index])
        found = stack.views(index, gradients)
        for name, parameter in module.named_parameters():
            wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            if parameter.requires_grad and not _close(found[name], wanted):
                return f"a stack gives another gradient of {shorten(name, quote=False)}"
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.01 * parameter.grad)
    with torch.no_grad():
        for numbers, gradient in zip(stack.parameters, gradients, strict=True):
            numbers.sub_(0.01 * gradient)
    return _compare_state(stack, modules, samples, flat, builds)


def _build_again(builds: Sequence[Callable[[], object]], index: int) -> None:
    if builds:
        with torch.random.fork_rng(devices=[]):
            builds[index]()


def _compare_state(
    stack: AnyStack,
    modules: Sequence[nn.Module],
    samples: Tensor,
    flat: Tensor,
    builds: Sequence[Callable[[], object]],
) -> str | None:
    own = flat.ndim > 2
    evaluated = stack.forward(flat, train=False)
    for index, module in enumerate(modules):
        tensors = {**stack.views(index, stack.parameters), **stack.statistics(index)}
        for name, value in module.state_dict().items():
            if not _close(tensors[name].to(value.dtype), value):
                return f"a stack leaves another {shorten(name, quote=False)}"
        _build_again(builds, index)
        with torch.no_grad():
            alone = module.eval()(samples[index] if own else samples)
        if not _close(evaluated.mT[index], alone):
            return "a stack gives other outputs in evaluation"
    return None


def _close(found: Tensor, wanted: Tensor) -> bool:
    found, wanted = found.detach(), wanted.detach()
    if found.shape != wanted.shape:
        return False
    close = CLOSE if wanted.dtype == torch.float64 else CLOSE_SINGLE
    bound = close * max(1.0, float(wanted.abs().max())) if wanted.numel() and wanted.is_floating_point() else 0
    return torch.allclose(found, wanted, rtol=0, atol=bound, equal_nan=True)


@torch.no_grad()
def load_modules(stack: AnyStack, modules: Sequence[nn.Module]) -> None:
    """Load the modules' present weights into a stack of them."""
    for index, module in enumerate(modules):
        tensors = {**stack.views(index, stack.parameters), **stack.statistics(index)}
        for name, value in module.state_dict().items():
            tensors[name].copy_(value)
            if name.endswith("num_batches_tracked"):  # of which some stacks keep one for all
                stack.tracked = int(value)


def _explain(error: Exception) -> str:
    """Return what an error of a pass through a stack means, in one phrase."""
    text = str(error)
    if "random operation" in text or "randomness" in text or "aten::rrelu" in text:
        return "it draws random numbers of its own, other than by torch's dropout"
    if ".item()" in text or "data-dependent" in text or "control flow" in text:
        return "it looks at the numbers of a batch while it computes (if, .item() and the like)"
    for words, meaning in MEANINGS.items():
        if words in text:
            return meaning
    if "the fallback path doesn't work on out=" in text:
        return "it computes into tensors of its own (out=), for which torch.func.vmap has no rule"
    if "rule not implemented for" in text or "not yet support" in text:
        name = text.partition("aten::")[2].split()[0].rstrip(".,;") if "aten::" in text else "what it computes"
        return f"torch.func.vmap has no rule for {name.partition('.')[0]}"
    return f"it cannot be computed in a stack: {summarize_error(error)}"


# Measurement.


def _why_slower(config: TrialConfig, data: Data, x: Tensor, y: Tensor, clock: Clock | None) -> str | None:
    """Return that a stack is no faster, where it is not."""
    gains = []
    for _ in range(2):  # a machine that is busy with something else may disturb one
        if (timing := measure_gain(config, data, x, y, clock)) is None:
            return "one model is large enough to keep the processor busy"
        if timing.gain >= GAIN:
            return None
        gains.append(timing.gain)
    return f"a stack is {max(gains):.1f} times as fast as one at a time here"
