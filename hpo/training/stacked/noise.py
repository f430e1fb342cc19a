"""Random bits of each member of a stack, from generators of their own: no member's depend on who else is in the
stack.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hpo.config.cohort_key import run_key
from hpo.config.trial_config import SEEDS, TrialConfig

__all__ = ["Noise", "draw_factors", "keep_generators", "noise_key", "noise_seed", "scale_kept"]

POOL = 4096  # words of 64 bits that a member draws at once: a call takes longer than a few thousand of them
STRIDE = 0x9E3779B97F4A7C15  # of seeds, so that no two are close


def noise_key(config: TrialConfig) -> int:
    """Return a number of 32 bits that tells a trial's noise from that of others: by its configuration, not its cohort.

    Where the configuration has an `order_seed`, its other seeds do not matter. It takes as long as a step of a small
    model, so it is made once a run.
    """
    key = run_key(config)
    if config.order_seed is not None:
        key = tuple((name, value) for name, value in key if name not in SEEDS)
    return zlib.crc32(repr(key).encode())


def noise_seed(key: int, epoch_seed: int) -> int:
    """Return the seed of a trial's noise in an epoch; see `noise_key`."""
    return (epoch_seed ^ key) % 2**63


@contextmanager
def keep_generators(device: torch.device) -> Iterator[None]:
    """Give torch's global generators back as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


class Noise:
    """Random bits of all members.

    Args:
        count: members.
        device: where the bits are wanted.

    Attributes:
        kept: the factors of dropouts, in the order of their use, (members, n, …) each; None where nobody wants them.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.kept: list[Tensor] | None = None
        self._generators = [torch.Generator(device) for _ in range(count)]
        self._pool = torch.empty(count, POOL, dtype=torch.int64, device=device)
        self._used = POOL
        self._seeds = [0] * count
        self._asked = 0  # how often for seeds, in this epoch
        self._listed: list[int] | None = None
        self._given: Iterator[Tensor] | None = None

    def begin(self, seeds: Sequence[int]) -> None:
        """Start an epoch, with a seed for each member."""
        self._seeds, self._asked = list(seeds), 0
        for generator, seed in zip(self._generators, seeds, strict=True):
            generator.manual_seed(seed)
        self._used = POOL

    def draw(self, words: int) -> Tensor:
        """Return so many random words of each member, (members, words); the next call may reuse their memory."""
        if self._given is not None:
            return next(self._given)
        if self._listed is not None:
            self._listed.append(words)
        if words > POOL:
            return self._fill(self._pool.new_empty(len(self._pool), words))
        if words > POOL - self._used:
            self._fill(self._pool)
            self._used = 0
        self._used += words
        return self._pool[:, self._used - words : self._used]

    @contextmanager
    def list_draws(self) -> Iterator[list[int]]:
        """List the words of each draw while the context lasts."""
        self._listed = listed = list[int]()
        try:
            yield listed
        finally:
            self._listed = None

    @contextmanager
    def give(self, bits: Sequence[Tensor]) -> Iterator[None]:
        """Let draws return these words, in their order, while the context lasts."""
        self._given = iter(bits)
        try:
            yield
        finally:
            self._given = None

    def _fill(self, bits: Tensor) -> Tensor:
        for row, generator in zip(bits, self._generators, strict=True):
            row.random_(-(2**63), None, generator=generator)
        return bits

    def next_seeds(self) -> list[int]:
        """Return a further seed of each member, for what can draw from torch's global generators alone."""
        self._asked += 1
        return [(seed + self._asked * STRIDE) % 2**63 for seed in self._seeds]

    def state(self, member: int) -> list[Tensor]:
        """Return a member's generator, the words it has drawn ahead, and the number of its seeds, for a checkpoint."""
        ahead = self._pool[member, self._used :].clone()
        return [self._generators[member].get_state(), ahead, torch.tensor(self._asked)]

    def load(self, member: int, state: Sequence[Tensor]) -> None:
        """Load what `state` returned, after `begin`.

        All members have drawn as many words, but those whose stack dropped nothing, which have drawn none: they need
        none, and change nothing for the others.
        """
        generator, ahead, asked = state
        self._generators[member].set_state(generator.cpu())
        start = POOL - len(ahead)
        self._used, self._asked = min(self._used, start), max(self._asked, int(asked))
        self._pool[member, start:] = ahead.to(self._pool)


def scale_kept(kept: Tensor) -> Tensor:
    """Return by what units are multiplied of which so many 65536ths are kept; 0 where none are."""
    return (65536 / kept).nan_to_num_(posinf=0)


def draw_factors(like: Tensor, shares: Tensor, noise: Noise) -> Tensor:
    """Draw the factors of inverted dropout (Srivastava et al., 2014): 0, or 1 over what is kept.

    An element takes 16 random bits; drawing them takes an eleventh of the time of torch's Bernoulli numbers on a CPU.

    Args:
        like: (members, …), whose shape the factors get, and whose layout where members follow one another in memory.
        shares: of each member, what is dropped.
        noise: gives the bits.
    """
    each = like[0].numel()
    bits = noise.draw(-(-each // 4)).view(torch.int16)[:, :each]
    dropped = (shares * 65536).round_().view(-1, 1)
    least = (dropped - 32768).clamp_(max=32767).to(torch.int16)
    # Side by side in memory, whatever the layout: with other strides to compare takes five times as long.
    factors = like.new_empty(len(like), each)
    torch.ge(bits, least, out=factors).mul_(scale_kept((65536 - dropped).to(like.dtype)))
    strides = torch.empty_like(like).stride()
    return factors.as_strided(like.shape, strides) if strides[0] == each else factors.view(like.shape)
