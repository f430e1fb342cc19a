"""Benchmark of stacked CNNs on a CPU: forward and backward of K small CNNs, in three ways, in turns.

    python -m benchmarks.convolutions [--threads 1] [--rounds 5]

Each model is the two convolution blocks of our `cnn` (3 x 3 windows, 2 x 2 pooling, relu): 1 to C channels on 28 x 28,
then C to 2C on 14 x 14. The batch is shared. `alone`: one after the other, as `hpo.training.models` builds them, in
channels_last. `grouped`: channels concatenated; the first convolution has K C outputs, the second K groups. `bmm`:
windows gathered and multiplied as one batched product, the gathering's backward written out by hand. All give the same
gradients, which is checked. Dense layers and optimizers are left out.

A figure is microseconds of a step of one model, the median of the rounds; a ratio is the time alone over the time
stacked, with the least and the largest of the rounds: above 1, stacking pays.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.training import seconds
from hpo.config.trial_config import TrialConfig
from hpo.training.memory import keep_freed_memory
from hpo.training.models import build_model

TURN = 0.25  # seconds
KERNEL = 3
relu, pool, convolve = functional.relu, functional.max_pool2d, functional.conv2d


class Windows(torch.autograd.Function):
    """The windows around the pixels of pictures (…, H, W, C), as (…, H, W, 9 C)."""

    @staticmethod
    def forward(context: Any, pictures: Tensor) -> Tensor:
        padded = functional.pad(pictures, (0, 0, 1, 1, 1, 1))
        context.shape = padded.shape
        return torch.cat(shifted(padded), -1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        padded = gradients[0].new_zeros(context.shape)
        for part, gradient in zip(shifted(padded), gradients[0].chunk(KERNEL**2, -1), strict=True):
            part.add_(gradient)
        return padded[..., 1:-1, 1:-1, :]


windows: Callable[[Tensor], Tensor] = Windows.apply


def shifted(padded: Tensor) -> list[Tensor]:
    height, width = (size - KERNEL + 1 for size in padded.shape[-3:-1])
    offsets = product(range(KERNEL), repeat=2)
    return [padded[..., row : row + height, column : column + width, :] for row, column in offsets]


def alone(models: list[nn.Sequential], x: Tensor) -> list[Tensor]:
    gradients = [torch.autograd.grad(model(x).square().mean(), list(model.parameters())) for model in models]
    return [torch.cat(each) for each in zip(*gradients, strict=True)]


def grouped(models: int, weights: list[Tensor], x: Tensor) -> tuple[Tensor, ...]:
    w1, b1, w2, b2 = weights
    hidden = relu(pool(convolve(x, w1, b1, padding=1), 2))
    outputs = relu(pool(convolve(hidden, w2, b2, padding=1, groups=models), 2))
    return torch.autograd.grad(outputs.square().mean() * models, weights)


def bmm(models: int, weights: list[Tensor], x: Tensor) -> tuple[Tensor, ...]:
    (w1, b1, w2, b2), batch = weights, len(x)
    first = torch.addmm(b1, windows(x.movedim(1, -1)).flatten(0, 2), w1.flatten(1).t())
    hidden = relu(pool(first.view(batch, 28, 28, -1).movedim(-1, 1), 2)).movedim(1, -1)
    gathered = windows(hidden.reshape(batch, 14, 14, models, -1).movedim(-2, 0).contiguous())
    matrices = w2.view(models, -1, *w2.shape[1:]).permute(0, 3, 4, 2, 1).flatten(1, 3)
    second = torch.baddbmm(b2.view(models, 1, -1), gathered.flatten(1, 3), matrices)
    outputs = relu(pool(second.view(models * batch, 14, 14, -1).movedim(-1, 1), 2))
    return torch.autograd.grad(outputs.square().mean() * models, weights)


def contenders(count: int, channels: int, batch: int) -> list[Callable[[], object]]:
    """Return the steps of all models alone, grouped, and as batched products."""
    configs = [TrialConfig(model="cnn", channels=channels, kernel_size=KERNEL, seed=seed) for seed in range(count)]
    built = [list(build_model(config, (1, 28, 28), 10).children()) for config in configs]
    models = [nn.Sequential(*layers[:6]) for layers in built]  # the blocks, without what is dense
    columns = zip(*(model.parameters() for model in models), strict=True)
    weights = [torch.cat(each).detach().contiguous().requires_grad_() for each in columns]
    x = torch.randn(batch, 1, 28, 28, generator=torch.manual_seed(0))
    for way in (grouped, bmm):
        torch.testing.assert_close(list(way(count, weights, x)), alone(models, x), rtol=1e-3, atol=1e-5)
    return [lambda: alone(models, x), lambda: grouped(count, weights, x), lambda: bmm(count, weights, x)]


def measure(step: Callable[[], object]) -> float:
    """Return the seconds of a step."""
    steps = max(1, round(TURN / seconds(step)))
    return seconds(lambda: [step() for _ in range(steps)]) / steps


def ratio(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):6.2f}{f'({min(ratios):.2f}-{max(ratios):.2f})':>13}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    where = f"{platform.processor() or platform.machine()}, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    print(f"{where}, {arguments.threads} threads, {arguments.rounds} rounds; microseconds of a step of one model\n")
    print(f"models channels  batch{'alone':>9}{'grouped':>9}{'bmm':>9}{'alone/grouped':>19}{'alone/bmm':>19}")
    for models, channels, batch in product((4, 8), (8, 16, 32), (32, 128)):
        ways = contenders(models, channels, batch)
        rounds = [[measure(way) / models for way in ways] for _ in range(arguments.rounds)]
        figures = "".join(f"{statistics.median(column) * 1e6:9.0f}" for column in zip(*rounds, strict=True))
        ratios = "".join(ratio([times[0] / times[way] for times in rounds]) for way in (1, 2))
        print(f"{models:6}{channels:9}{batch:7}{figures}{ratios}", flush=True)


if __name__ == "__main__":
    main()
