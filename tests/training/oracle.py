"""A multilayer perceptron in NumPy, float64, from the formulas: the independent reference for the learner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import erf, expit

Array = np.ndarray[Any, Any]

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # of Klambauer et al. 2017
SQRT2, SQRT2PI = np.sqrt(2.0), np.sqrt(2 * np.pi)

# Each activation and its derivative.
ACTIVATIONS: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "sigmoid": (expit, lambda z: expit(z) * (1 - expit(z))),
    "elu": (lambda z: np.where(z > 0, z, np.expm1(z)), lambda z: np.where(z > 0, 1.0, np.exp(z))),
    "gelu": (
        lambda z: z * (1 + erf(z / SQRT2)) / 2,
        lambda z: (1 + erf(z / SQRT2)) / 2 + z * np.exp(-(z**2) / 2) / SQRT2PI,
    ),
    "silu": (lambda z: z * expit(z), lambda z: expit(z) * (1 + z * (1 - expit(z)))),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1.0, 0.01)),
    "mish": (
        lambda z: z * np.tanh(softplus(z)),
        lambda z: np.tanh(softplus(z)) + z * expit(z) * (1 - np.tanh(softplus(z)) ** 2),
    ),
    "hardswish": (
        lambda z: z * np.clip(z + 3, 0, 6) / 6,
        lambda z: np.where(z < -3, 0.0, np.where(z > 3, 1.0, (2 * z + 3) / 6)),
    ),
    "softplus": (lambda z: softplus(z), expit),
    "selu": (
        lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(z)),
        lambda z: SELU_SCALE * np.where(z > 0, 1.0, SELU_ALPHA * np.exp(z)),
    ),
    "prelu": (lambda z, slope: np.where(z > 0, z, slope * z), lambda z, slope: np.where(z > 0, 1.0, slope)),
}


def softplus(z: Array) -> Array:
    """log(1 + exp z)."""
    return np.logaddexp(0, z)


def softmax(outputs: Array) -> Array:
    powers = np.exp(outputs - outputs.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def one_hot(y: Array, classes: int) -> Array:
    return np.eye(classes)[y]


def weigh(losses: Array, gradients: Array, w: Array | None) -> tuple[float, Array]:
    """The mean over samples and columns, and the gradient of that: of losses (n, columns) with gradients (n, outputs).

    Weights are of samples, (n,), or of labels, (n, columns).
    """
    weights = np.ones((1, 1)) if w is None else w.reshape(len(w), -1)
    return float((losses * weights).mean()), gradients * weights / losses.size


def cross_entropy(outputs: Array, y: Array, smoothing: float = 0.0, w: Array | None = None) -> tuple[float, Array]:
    """The mean loss and its gradient by the outputs."""
    classes = outputs.shape[1]
    target = (1 - smoothing) * one_hot(y, classes) + smoothing / classes
    p = softmax(outputs)
    return weigh(-(target * np.log(p)).sum(1, keepdims=True), p - target, w)


def mse(outputs: Array, y: Array, w: Array | None = None) -> tuple[float, Array]:
    classes = outputs.shape[1]
    p = softmax(outputs)
    difference = p - one_hot(y, classes)
    by_p = 2 * difference / classes
    return weigh((difference**2).mean(1, keepdims=True), p * (by_p - (by_p * p).sum(1, keepdims=True)), w)


def binary_cross_entropy(outputs: Array, y: Array, w: Array | None = None) -> tuple[float, Array]:
    p = expit(outputs)
    return weigh(-(y * np.log(p) + (1 - y) * np.log(1 - p)), p - y, w)


def squared_error(outputs: Array, y: Array, w: Array | None = None) -> tuple[float, Array]:
    return weigh((outputs - y) ** 2, 2 * (outputs - y), w)


def absolute_error(outputs: Array, y: Array, w: Array | None = None) -> tuple[float, Array]:
    return weigh(abs(outputs - y), np.sign(outputs - y), w)


def huber(outputs: Array, y: Array, w: Array | None = None, delta: float = 1.0) -> tuple[float, Array]:
    """Huber 1964: half the square up to delta, and the line that goes on from there."""
    error = outputs - y
    near = abs(error) < delta
    losses = np.where(near, error**2 / 2, delta * (abs(error) - delta / 2))
    return weigh(losses, np.where(near, error, delta * np.sign(error)), w)


def gaussian_nll(outputs: Array, y: Array, w: Array | None = None, eps: float = 1e-6) -> tuple[float, Array]:
    """Nix and Weigend 1994: means and logarithms of variances, which are bounded as torch bounds them."""
    mean, s = np.split(outputs, 2, axis=1)
    v, error = np.maximum(np.exp(s), eps), mean - y
    losses = (np.log(v) + error**2 / v) / 2
    by_v = (1 / v - error**2 / v**2) / 2
    return weigh(losses, np.concatenate([error / v, by_v * np.exp(s)], 1), w)


class Mlp:
    """`parameters` is W1, b1, W2, b2, …, with W of shape (outputs, inputs), as in torch; PReLU's slope behind b1, ….

    A slope is one number of the whole layer.
    """

    def __init__(self, parameters: list[Array], activation: str) -> None:
        self.parameters = [value.astype(np.float64) for value in parameters]
        self.activate, self.slope = ACTIVATIONS[activation]
        self.stride = 3 if activation == "prelu" else 2

    @classmethod
    def random(cls, widths: tuple[int, ...], activation: str, seed: int = 0) -> Mlp:
        rng = np.random.default_rng(seed)
        own = [(1,)] if activation == "prelu" else []
        shapes = [shape for inputs, outputs in pairwise(widths) for shape in ((outputs, inputs), (outputs,), *own)]
        return cls([rng.normal(scale=0.5, size=shape) for shape in shapes[: len(shapes) - len(own)]], activation)

    def learned(self, layer: int) -> list[Array]:
        """Weights that the activation behind a layer has learned."""
        return self.parameters[self.stride * layer + 2 : self.stride * (layer + 1)]

    def forward(self, x: Array) -> tuple[Array, list[Array], list[Array]]:
        """The outputs, each layer's inputs, each layer's sums."""
        inputs, sums = [x], []
        for layer, i in enumerate(range(0, len(self.parameters), self.stride)):
            sums.append(inputs[-1] @ self.parameters[i].T + self.parameters[i + 1])
            if i + 2 < len(self.parameters):
                inputs.append(self.activate(sums[-1], *self.learned(layer)))
        return sums[-1], inputs, sums

    def gradients(self, x: Array, by_outputs: Array) -> list[Array]:
        _, inputs, sums = self.forward(x)
        grads: list[Array] = []
        delta = by_outputs
        for layer in reversed(range(len(sums))):
            grads = [delta.T @ inputs[layer], delta.sum(0), *grads]
            if layer:
                z, delta = sums[layer - 1], delta @ self.parameters[self.stride * layer]
                grads = [*((delta * np.minimum(z, 0)).sum(keepdims=True)[0] for _ in self.learned(layer - 1)), *grads]
                delta = delta * self.slope(z, *self.learned(layer - 1))
        return grads


@dataclass
class Optimizer:
    """One step of every optimizer, for one array, from the papers' formulas; `state` lasts between steps.

    `average` is what is evaluated, of an optimizer that averages.
    """

    name: str
    rate: float
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decay: float = 0.0
    rho: float = 0.9
    asgd_decay: float = 1e-4
    asgd_power: float = 0.75
    asgd_start: int = 1_000_000
    state: dict[str, Any] = field(default_factory=dict)

    def step(self, w: Array, g: Array) -> Array:
        self.state["t"] = self.state.get("t", 0) + 1
        if self.name not in ("adamw", "lion", "schedule_free_adamw", "rprop"):
            g = g + self.decay * w
        step: Callable[[Array, Array], Array] = getattr(self, f"_{self.name}", self._sgd)
        return step(w, g)

    @property
    def average(self) -> Array | None:
        return self.state.get("average")

    def _moving(self, key: str, value: Array, decay: float) -> Array:
        self.state[key] = decay * self.state.get(key, 0.0) + (1 - decay) * value
        moved: Array = self.state[key]
        return moved

    def _sgd(self, w: Array, g: Array) -> Array:
        """Polyak: v = mu v + g; w -= rate v. Nesterov, as Sutskever et al. 2013 rearranged: w -= rate (g + mu v)."""
        v = self.state["v"] = self.momentum * self.state.get("v", 0.0) + g
        return w - self.rate * (g + self.momentum * v if self.name == "nesterov" else v)

    def _rmsprop(self, w: Array, g: Array) -> Array:
        """Tieleman and Hinton 2012, decay 0.99, momentum on the scaled gradient."""
        scaled = g / (np.sqrt(self._moving("s", g**2, 0.99)) + self.epsilon)
        v = self.state["v"] = self.momentum * self.state.get("v", 0.0) + scaled
        return w - self.rate * v

    def _adam(self, w: Array, g: Array) -> Array:
        """Kingma and Ba 2015, algorithm 1."""
        t = self.state["t"]
        m, v = self._moving("m", g, self.beta1), self._moving("s", g**2, self.beta2)
        return w - self.rate * (m / (1 - self.beta1**t)) / (np.sqrt(v / (1 - self.beta2**t)) + self.epsilon)

    def _adamw(self, w: Array, g: Array) -> Array:
        """Loshchilov and Hutter 2019: the decay is taken from the weights, not added to the gradient."""
        return self._adam(w * (1 - self.rate * self.decay), g)

    def _nadam(self, w: Array, g: Array) -> Array:
        """Dozat 2016, with his schedule of momentum: mu_t = beta1 (1 - 0.5 * 0.96^(0.004 t))."""
        t = self.state["t"]
        mu, following = (self.beta1 * (1 - 0.5 * 0.96 ** (0.004 * i)) for i in (t, t + 1))
        product = self.state["product"] = self.state.get("product", 1.0) * mu
        m, v = self._moving("m", g, self.beta1), self._moving("s", g**2, self.beta2)
        ahead = following * m / (1 - product * following) + (1 - mu) * g / (1 - product)
        return w - self.rate * ahead / (np.sqrt(v / (1 - self.beta2**t)) + self.epsilon)

    def _adagrad(self, w: Array, g: Array) -> Array:
        """Duchi et al. 2011, diagonal."""
        s = self.state["s"] = self.state.get("s", 0.0) + g**2
        return w - self.rate * g / (np.sqrt(s) + self.epsilon)

    def _adadelta(self, w: Array, g: Array) -> Array:
        """Zeiler 2012, algorithm 1: steps have the unit of the weights, by the root mean square of those before."""
        past = np.sqrt(self.state.get("d", 0.0) + self.epsilon)
        step = past / np.sqrt(self._moving("s", g**2, self.rho) + self.epsilon) * g
        self._moving("d", step**2, self.rho)
        return w - self.rate * step

    def _adamax(self, w: Array, g: Array) -> Array:
        """Kingma and Ba 2015, algorithm 2; torch adds epsilon to the gradient's size."""
        m = self._moving("m", g, self.beta1)
        u = self.state["u"] = np.maximum(self.beta2 * self.state.get("u", 0.0), abs(g) + self.epsilon)
        return w - self.rate / (1 - self.beta1 ** self.state["t"]) * m / u

    def _radam(self, w: Array, g: Array) -> Array:
        """Liu et al. 2020, algorithm 2; torch is adaptive from a length of 5 on, and not of 4."""
        t = self.state["t"]
        m, v = self._moving("m", g, self.beta1), self._moving("s", g**2, self.beta2)
        most = 2 / (1 - self.beta2) - 1
        rho = most - 2 * t * self.beta2**t / (1 - self.beta2**t)
        m = m / (1 - self.beta1**t)
        if rho <= 5:
            return w - self.rate * m
        r = np.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
        return w - self.rate * r * m * np.sqrt(1 - self.beta2**t) / (np.sqrt(v) + self.epsilon)

    def _asgd(self, w: Array, g: Array) -> Array:
        """Bottou 2010 (the rate's decay) and Polyak and Juditsky 1992 (the mean); torch is a step behind with both."""
        t = self.state["t"]
        rate = self.state.get("rate", self.rate)
        rate = rate / (1 + self.asgd_decay * rate * (t - 1)) ** self.asgd_power
        w = w - rate * (g + self.asgd_decay * w)
        self.state["rate"] = self.rate
        share = 1 / max(1, t - 1 - self.asgd_start)
        self.state["average"] = self.state.get("average", 0.0) * (1 - share) + w * share
        return w

    def _rprop(self, w: Array, g: Array) -> Array:
        """Igel and Huesken 2000, iRprop-: after a turn the gradient counts as 0."""
        before, size = self.state.get("g", 0.0 * g), self.state.get("size", self.rate + 0.0 * g)
        size = np.clip(size * np.select([g * before > 0, g * before < 0], [1.2, 0.5], 1.0), 1e-6, 50)
        g = self.state["g"] = np.where(g * before < 0, 0.0, g)
        self.state["size"] = size
        return w - size * np.sign(g)

    def _lion(self, w: Array, g: Array) -> Array:
        """Chen et al. 2023, algorithm 2."""
        m = self.state.get("m", 0.0)
        direction = np.sign(self.beta1 * m + (1 - self.beta1) * g)
        self._moving("m", g, self.beta2)
        return w - self.rate * (direction + self.decay * w)

    def _schedule_free_adamw(self, w: Array, g: Array) -> Array:
        """Defazio et al. 2024, algorithm 1: gradients at y = (1 - beta1) z + beta1 x, and x is the mean of all z."""
        t, z, x = self.state["t"], self.state.get("z", w), self.state.get("average", w)
        v = self._moving("s", g**2, self.beta2) / (1 - self.beta2**t)
        z = self.state["z"] = z - self.rate * (g / (np.sqrt(v) + self.epsilon) + self.decay * w)
        largest = self.state["largest"] = max(self.state.get("largest", 0.0), self.rate)
        total = self.state["total"] = self.state.get("total", 0.0) + largest**2
        share = largest**2 / total
        x = self.state["average"] = (1 - share) * x + share * z
        return (1 - self.beta1) * z + self.beta1 * x
