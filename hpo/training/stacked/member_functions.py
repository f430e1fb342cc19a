"""Functions of torch, computed for all members of a stack at a time under `torch.func.vmap`.

Torch's rules for vmap are right, but slow for small models, draw one stream of random numbers for all members, and are
missing for recurrent layers and bags of embeddings. `member_functions` puts these in their place: whatever a module
calls by way of `torch.nn.functional`, its own layers and torch's, then takes them. Activations of linear layers lie
feature by feature in memory: a batched product writes them so, batch normalisation reads its channels side by side, and
whatever is computed element by element keeps the layout.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import _VF, Tensor
from torch._C import _functorch as functorch
from torch._functorch.predispatch import lazy_load_decompositions
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
from torch._functorch.vmap import vmap_increment_nesting

from hpo.training.stacked import noise as member_noise
from hpo.training.stacked.noise import Noise
from hpo.training.stacked.recurrent import CELLS, KINDS, Cell, Recurrence, run_layers

__all__ = ["Draws", "Given", "Members", "Share", "member_functions"]

# Of self-normalising networks (Klambauer et al., 2017): what dropped units are set to.
ALPHA = -1.7580993408473766
SHARE_READ = "it computes with the share of a dropout, or decides by it"
# Torch's own, for members that see none of ours, and for other threads.
ORIGINALS: dict[str, Any] = {
    name: getattr(F, name)
    for name in (
        *("linear", "batch_norm", "embedding", "embedding_bag", "scaled_dot_product_attention"),
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
    )
}
RECURRENT: dict[str, Any] = {name: getattr(_VF, name) for name in (*KINDS, *CELLS)}


class Share(float):
    """Share of a dropout, by a key under which each member's own is found; as a number, the largest of all.

    What a module computes from it, or decides by it, would be that of the largest for every member, and raises. Only
    whether it is 0 may be asked: where another member's is 0 and this is not, dropping nothing comes to the same.
    """

    key: str

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError(SHARE_READ)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __abs__ = __round__ = _refuse

    def _compare(self, other: object, holds: Callable[[float, Any], bool]) -> bool:
        if isinstance(other, int | float) and other:
            raise RuntimeError(SHARE_READ)
        return holds(float(self), other)

    def __lt__(self, other: object) -> bool:
        return self._compare(other, float.__lt__)

    def __le__(self, other: object) -> bool:
        return self._compare(other, float.__le__)

    def __gt__(self, other: object) -> bool:
        return self._compare(other, float.__gt__)

    def __ge__(self, other: object) -> bool:
        return self._compare(other, float.__ge__)

    @classmethod
    def of(cls, share: float, key: str) -> Share:
        """Return a share with its key."""
        made = cls(share)
        made.key = key
        return made

    def __deepcopy__(self, _: object) -> Share:
        return self


class Draws:
    """Draws of one pass through the members: each member's shares, and where their random bits come from.

    Attributes:
        noise: of the members.
        shares: of each dropout, by key, under vmap; and under "" a zero for each member.
    """

    def __init__(self, noise: Noise) -> None:
        self.noise = noise
        self.shares: dict[str, Tensor] = {}

    def factors(self, like: Tensor, shares: Tensor) -> Tensor:
        """Draw factors like a tensor (members, …)."""
        drawn = member_noise.draw_factors(like, shares, self.noise)
        if self.noise.kept is not None:
            self.noise.kept.append(drawn)
        return drawn

    def apply(self, x: Tensor, share: float, kind: str) -> Tensor:
        """Return what a dropout lets through of a member's x, under vmap."""
        outputs: Tensor = _compute_all(_drop_all, x, self.shares_of(share), self, kind)
        return outputs

    def shares_of(self, share: float) -> Tensor:
        """Return a member's own share, under vmap."""
        return self.shares[share.key] if isinstance(share, Share) and share else self.shares[""] + share


class Given:
    """Draws that were recorded, for one member that is computed alone.

    Args:
        kept: the factors of all members, in the order of their use; see `Noise`.
        member: whose.
    """

    def __init__(self, kept: Sequence[Tensor], member: int) -> None:
        self._left = [each[member] for each in kept]

    def apply(self, x: Tensor, share: float, kind: str) -> Tensor:
        """Return what a dropout lets through of x."""
        return _drop(x, self._left.pop(0).to(x.dtype), x.new_tensor(float(share)), kind)


_present = threading.local()
_warn_of_fallbacks: Callable[[bool], None] = torch._C._functorch._set_vmap_fallback_warning_enabled  # type: ignore[attr-defined]


class Members:
    """Pass through all members at a time, as a context: what `torch.func.vmap` does, for tensors without containers.

    A vmap takes as long to take its arguments apart as a small model takes to compute.

    Args:
        count: members.
    """

    def __init__(self, count: int) -> None:
        self._count, self._level = count, 0
        lazy_load_decompositions()
        self._nesting = vmap_increment_nesting(count, "error")

    def __enter__(self) -> Members:
        self._level = self._nesting.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._nesting.__exit__(*error)

    def each(self, tensor: Tensor) -> Tensor:
        """Return a member's part of a tensor with the members first."""
        return functorch._add_batch_dim(tensor, 0, self._level)

    def all(self, tensor: Tensor) -> Tensor:
        """Return all members' tensors, with the members first, of what was computed for each."""
        return functorch._remove_batch_dim(tensor, self._level, self._count, 0)


def _draws() -> Draws | Given | None:
    """Return the draws of this thread's pass; None outside one."""
    found: Draws | Given | None = getattr(_present, "draws", None)
    return found


@contextmanager
def member_functions(draws: Draws | Given) -> Iterator[None]:
    """Let torch's functions compute members while the context lasts, with dropouts that draw from `draws`.

    With draws that are given, for a member alone, only dropouts change.
    """
    names = FUNCTIONS if isinstance(draws, Draws) else {name: each for name, each in FUNCTIONS.items() if name in DRAWN}
    fast = torch.backends.mha.get_fastpath_enabled()  # a kernel of its own for transformers without gradients
    _present.draws = draws
    for name, function in names.items():
        setattr(F, name, function)
    for name, function in RECURRENCES.items():
        setattr(_VF, name, function)
    torch.backends.mha.set_fastpath_enabled(False)
    _warn_of_fallbacks(False)  # where a function has no rule, its slowness is measured
    try:
        yield
    finally:
        _warn_of_fallbacks(True)
        torch.backends.mha.set_fastpath_enabled(fast)
        for name in names:
            setattr(F, name, ORIGINALS[name])
        for name in RECURRENCES:
            setattr(_VF, name, RECURRENT[name])
        _present.draws = None


def _is_stacked(*tensors: Tensor | None) -> bool:
    """Return whether a tensor differs from member to member, in a pass through all of them."""
    inside = isinstance(_draws(), Draws)
    return inside and any(each is not None and functorch.is_batchedtensor(each) for each in tensors)


def _compute_all(rule: Callable[..., Any], *arguments: Any) -> Any:
    """Compute all members' tensors, under vmap, by a rule that takes and returns them with the members first.

    This is what torch.autograd.Function's own rules for vmap do, in a tenth of the time. Tensors that the members share
    are expanded.
    """
    interpreter: Any = retrieve_current_functorch_interpreter()
    level, members = interpreter.level(), interpreter.batch_size()
    given = [_unwrap(each, level, members) if isinstance(each, Tensor) else each for each in arguments]
    with interpreter.lower():
        results = rule(*given)
    if isinstance(results, Tensor):
        return functorch._add_batch_dim(results, 0, level)
    return tuple(functorch._add_batch_dim(each, 0, level) for each in results)


def _unwrap(tensor: Tensor, level: int, members: int) -> Tensor:
    """Return a tensor with its members first."""
    if functorch.is_batchedtensor(tensor) and functorch.maybe_get_level(tensor) == level:
        dim = functorch.maybe_get_bdim(tensor)
        whole: Tensor = functorch.get_unwrapped(tensor)
        return whole.movedim(dim, 0) if dim else whole
    return tensor.expand(members, *tensor.shape)


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.ndim == 3:
        if not x.stride(0):  # a batch that all share: one product
            rows, batch = weight.reshape(-1, weight.shape[2]), x[0].mT
            product = rows @ batch if bias is None else torch.addmm(bias.reshape(-1, 1), rows, batch)
            return product.view(len(weight), -1, x.shape[1]).mT
        product = torch.bmm(weight, x.mT) if bias is None else torch.baddbmm(bias.unsqueeze(2), weight, x.mT)
        return product.mT
    rows = x.flatten(1, -2)
    product = torch.bmm(rows, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, weight.mT)
    return product.view(*x.shape[:-1], -1)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002  torch's name
    if input.ndim < 2 or not _is_stacked(input, weight, bias):
        outputs: Tensor = ORIGINALS["linear"](input, weight, bias)
        return outputs
    return cast(Tensor, _compute_all(_multiply, input, weight, bias))


def _normalise(x: Tensor, *arguments: Any) -> Tensor:
    tensors = (None if each is None else each.reshape(-1) for each in arguments[:4])
    sums = x.mT.reshape(1, -1, x.shape[1])
    outputs: Tensor = ORIGINALS["batch_norm"](sums, *tensors, *arguments[4:])
    return outputs.view(x.mT.shape).mT


def _batch_norm(
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    tensors = input, running_mean, running_var, weight, bias
    if input.ndim == 2 and running_mean is not None and _is_stacked(running_mean):
        outputs: Tensor = _compute_all(_normalise, *tensors, training, momentum, eps)
    else:
        outputs = ORIGINALS["batch_norm"](*tensors, training, momentum, eps)
    return outputs


def _drop(x: Tensor, factors: Tensor, share: Tensor, kind: str) -> Tensor:
    """Return what a dropout lets through: multiplied, or of alpha dropout set to a value, and mean and variance
    kept.
    """
    if not kind.endswith("alpha"):
        return x * factors
    kept = (factors > 0).to(x.dtype)
    a = ((1 + share * ALPHA**2) * (1 - share)).rsqrt().nan_to_num_(posinf=0)  # where all are dropped, they are 0
    return (x * kept + ALPHA * (1 - kept)) * a - a * ALPHA * share


def _drop_all(x: Tensor, shares: Tensor, draws: Draws, kind: str) -> Tensor:
    like = x.detach()
    if kind.startswith("feature"):  # whole channels: (members, n, channels, …)
        like = like.new_empty(*like.shape[:3], *[1] * (like.ndim - 3))
    return _drop(x, draws.factors(like, shares), shares.to(x.dtype).view(-1, *[1] * (x.ndim - 1)), kind)


def _make_dropout(name: str, kind: str, dims: int = 0) -> Callable[..., Tensor]:
    """Return a dropout of torch's for members; one of channels takes batches of so many dimensions, or any."""
    default = not name.endswith("alpha_dropout")  # torch's own defaults

    def drop(input: Tensor, p: float = 0.5, training: bool = default, inplace: bool = False) -> Tensor:  # noqa: A002
        draws = _draws()
        if draws is None or (dims and input.ndim != dims):
            outputs: Tensor = ORIGINALS[name](input, p, training, inplace)
            return outputs
        if not (training and p):
            return input
        outputs = draws.apply(input, p, kind)
        return input.copy_(outputs) if inplace else outputs

    return drop


def _attend(query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None) -> Tensor:
    """Compute attention, with members as further samples."""
    own = (each.flatten(0, 1) for each in (query, key, value))
    outputs: Tensor = ORIGINALS["scaled_dot_product_attention"](*own, is_causal=is_causal, scale=scale)
    return outputs.view(*query.shape[:2], *outputs.shape[1:])


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute attention with dropout in its parts; torch's own without."""
    draws = _draws()
    if not (dropout_p or enable_gqa or attn_mask is not None) and query.ndim > 2 and _is_stacked(query, key, value):
        return cast(Tensor, _compute_all(_attend, query, key, value, is_causal, scale))
    if draws is None or enable_gqa or not dropout_p:
        outputs: Tensor = ORIGINALS["scaled_dot_product_attention"](
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
        return outputs
    scores = (query * (scale or 1 / math.sqrt(query.shape[-1]))) @ key.mT
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=scores.dtype).masked_fill(~attn_mask, -math.inf)
    if attn_mask is not None:
        scores = scores + attn_mask
    return draws.apply(scores.softmax(-1), dropout_p, "dropout") @ value


def _embedding(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    *settings: Any,
    **others: Any,
) -> Tensor:
    """Look embeddings up; torch's rule gives the padding a gradient."""
    if padding_idx is None or not _is_stacked(input, weight):
        outputs: Tensor = ORIGINALS["embedding"](input, weight, padding_idx, *settings, **others)
        return outputs
    rows: Tensor = ORIGINALS["embedding"](input, weight, None, *settings, **others)
    return torch.where((input == padding_idx % weight.shape[0]).unsqueeze(-1), rows.detach(), rows)


def _embedding_bag(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Compute bags of equal sizes, input (n, size), from embeddings."""
    plain = input.ndim == 2 and offsets is None and max_norm is None and not (scale_grad_by_freq or sparse)
    if not (plain and _is_stacked(input, weight)):
        outputs: Tensor = ORIGINALS["embedding_bag"](
            *(input, weight, offsets, max_norm, norm_type, scale_grad_by_freq, mode, sparse),
            *(per_sample_weights, include_last_offset, padding_idx),
        )
        return outputs
    rows = F.embedding(input, weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    if padding_idx is None:
        return rows.mean(1) if mode == "mean" else rows.sum(1) if mode == "sum" else rows.amax(1)
    kept = (input != padding_idx % weight.shape[0]).unsqueeze(-1)
    if mode == "max":
        largest = rows.masked_fill(~kept, -math.inf).amax(1)
        return largest.masked_fill(~kept.any(1), 0)
    sums = rows.masked_fill(~kept, 0).sum(1)
    return sums if mode == "sum" else sums / kept.sum(1).clamp(min=1)


def _recur_all(settings: Recurrence, draws: Draws, shares: Tensor, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    return run_layers(settings, x, tensors, lambda rows: rows * draws.factors(rows.detach(), shares))


def _make_recurrence(name: str) -> Callable[..., Any]:
    """Return a recurrent layer of torch's for members; packed sequences go to torch's own, which has no rule."""

    def recur(input: Tensor, hx: Any, weights: Any, *settings: Any) -> Any:  # noqa: A002
        draws, own = _draws(), RECURRENT[name]
        if draws is None or isinstance(weights, Tensor):
            return own(input, hx, weights, *settings)
        biased, layers, share, training, bidirectional, batch_first = settings
        states = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
        if isinstance(draws, Given):
            return _recur_alone(draws, own, input, states, weights, settings)
        if not _is_stacked(input, *states, *weights) or len(weights) != (4 if biased else 2) * layers * (
            1 + bidirectional
        ):
            return own(input, hx, weights, *settings)
        drops = bool(training and layers > 1 and share)
        shares = draws.shares_of(share)
        made = KINDS[name](biased, layers, drops, bidirectional, batch_first)
        outputs, *final = _compute_all(_recur_all, made, draws, shares, input, *states, *weights)
        return outputs, *final

    return recur


def _make_cell(name: str, step: Cell) -> Callable[..., Any]:
    """Return a step of a recurrent layer of torch's for members."""

    def compute(input: Tensor, hx: Any, *weights: Any) -> Any:  # noqa: A002
        state = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
        if not _is_stacked(input, *state, *weights):
            return RECURRENT[name](input, hx, *weights)
        enter, stay, *biases = weights
        first, second = biases or (None, None)
        after = step(F.linear(input, enter, first), F.linear(state[0], stay, second), state)
        return after if len(after) > 1 else after[0]

    return compute


def _recur_alone(
    draws: Given, own: Any, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], settings: Sequence[Any]
) -> Any:
    """Compute one layer after the other by torch's own function, with the given dropout between them."""
    biased, layers, share, training, bidirectional, batch_first = settings
    if not (training and share and layers > 1):
        hx = states if len(states) > 1 else states[0]
        return own(x, hx, weights, *settings)
    each, ways = len(weights) // layers, 1 + bidirectional
    finals: list[Sequence[Tensor]] = []
    for layer in range(layers):
        if layer:  # drawn with the times first
            x = x.transpose(0, 1) if batch_first else x
            x = draws.apply(x, share, "dropout")
            x = x.transpose(0, 1) if batch_first else x
        begin = [state[layer * ways : (layer + 1) * ways] for state in states]
        part = weights[layer * each : (layer + 1) * each]
        x, *final = own(
            x, begin if len(begin) > 1 else begin[0], part, biased, 1, 0.0, training, bidirectional, batch_first
        )
        finals.append(final)
    return x, *(torch.cat(list(state)) for state in zip(*finals, strict=True))


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "linear": _linear,
    "batch_norm": _batch_norm,
    "embedding": _embedding,
    "embedding_bag": _embedding_bag,
    "scaled_dot_product_attention": _attention,
    "dropout": _make_dropout("dropout", "dropout"),
    "dropout1d": _make_dropout("dropout1d", "feature", 3),
    "dropout2d": _make_dropout("dropout2d", "feature", 4),
    "dropout3d": _make_dropout("dropout3d", "feature", 5),
    "alpha_dropout": _make_dropout("alpha_dropout", "alpha"),
    "feature_alpha_dropout": _make_dropout("feature_alpha_dropout", "feature alpha"),
}
RECURRENCES = {name: _make_recurrence(name) for name in KINDS} | {
    name: _make_cell(name, step) for name, step in CELLS.items()
}
DRAWN = frozenset(name for name in FUNCTIONS if "dropout" in name or "attention" in name)
