"""Convolutional networks: blocks of one convolution, or residual ones of two, each with pooling; then dense layers."""

from __future__ import annotations

from torch import Tensor, nn

from hpo.config.image_size import check_image, list_channels, list_halvings
from hpo.config.trial_config import TrialConfig
from hpo.training.layers import make_activation, make_dropout, make_image_norm, make_norm

__all__ = ["ResidualConvolutions", "cnn"]

# An activation that never falls gives the same after pooling as before it, on a quarter of the values: 29 to 20 ms a
# step for the CNN 32-64 on 2 cores at batch 128.
MONOTONE = {"relu", "leaky_relu", "elu", "tanh", "sigmoid", "selu", "softplus"}


def cnn(config: TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build blocks of convolution and 2 x 2 pooling, then a dense layer where `dense_width` gives one, and the outputs.

    With `global_pooling` the mean of each channel goes on from the last block (Lin, Chen and Yan, "Network in
    network", ICLR 2014), else every pixel.

    Raises:
        ConfigError: the samples are not images, or too small for the blocks to halve.
    """
    check_image(config, shape)
    inputs, height, width = shape
    layers: list[nn.Module] = []
    for channels, halves in zip(list_channels(config), list_halvings(config, height, width), strict=True):
        layers += _make_block(config, inputs, channels, halves=halves)
        height, width = (height // 2, width // 2) if halves else (height, width)
        inputs = channels
    if config.global_pooling:
        layers.append(nn.AdaptiveAvgPool2d(1))
        height = width = 1
    features = inputs * height * width
    return nn.Sequential(*layers, nn.Flatten(), *_make_dense(config, features, classes))


def _make_dense(config: TrialConfig, features: int, classes: int) -> list[nn.Module]:
    """Return the dense layer, if there is one, dropout, and the output layer."""
    dense = config.dense_width
    layers: list[nn.Module] = []
    if dense:
        layers += [nn.Linear(features, dense), *make_norm(config, dense), make_activation(config)]
    if config.dropout:
        layers.append(make_dropout(config))
    return [*layers, nn.Linear(dense or features, classes)]


def _make_block(config: TrialConfig, inputs: int, outputs: int, *, halves: bool) -> list[nn.Module]:
    """Return convolutions, normalisation, activation and pooling; pooling first where the result is the same."""
    activation = make_activation(config)
    if config.residual:
        convolved: list[nn.Module] = [ResidualConvolutions(config, inputs, outputs)]
    else:
        convolved = [*_make_convolution(inputs, outputs, config.kernel_size), *make_image_norm(config, outputs)]
    if not halves:
        return [*convolved, activation]
    pool = nn.MaxPool2d(2)
    return [*convolved, *([pool, activation] if config.activation in MONOTONE else [activation, pool])]


def _make_convolution(inputs: int, outputs: int, kernel: int, *, bias: bool = True) -> list[nn.Module]:
    """Return a convolution that keeps the size of the image."""
    if kernel % 2:
        return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)]
    before, after = (kernel - 1) // 2, kernel // 2  # torch's padding="same" warns about even windows
    return [nn.ZeroPad2d((before, after, before, after)), nn.Conv2d(inputs, outputs, kernel, bias=bias)]


class ResidualConvolutions(nn.Module):
    """Two convolutions whose result is added to what they read; the activation of the sum is the next layer.

    The basic block of He et al., "Deep residual learning for image recognition" (CVPR 2016). Where the number of
    channels changes, a 1 x 1 convolution brings the input to the new one. A normalised convolution has no bias.
    """

    def __init__(self, config: TrialConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        kernel, bias = config.kernel_size, not config.batch_norm
        self.layers = nn.Sequential(
            *_make_convolution(inputs, outputs, kernel, bias=bias),
            *make_image_norm(config, outputs),
            make_activation(config),
            *_make_convolution(outputs, outputs, kernel, bias=bias),
            *make_image_norm(config, outputs),
        )
        projection = [nn.Conv2d(inputs, outputs, 1, bias=bias), *make_image_norm(config, outputs)]
        self.shortcut = nn.Identity() if inputs == outputs else nn.Sequential(*projection)

    def forward(self, x: Tensor) -> Tensor:
        """Return images (n, outputs, H, W) of images (n, inputs, H, W)."""
        outputs: Tensor = self.layers(x) + self.shortcut(x)
        return outputs
