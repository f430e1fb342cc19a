"""Parameters of the built-in models."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from hpo.config.choices import ACTIVATIONS, INITIALISATIONS
from hpo.config.effects import (
    WHEN_GRU_POOLS,
    when_blocks_use,
    when_hidden_layers_use,
    when_model_uses,
    when_numbers_are_embedded,
    when_shape_uses,
)
from hpo.config.forms import JoinedNumbers
from hpo.config.parameter import AllowedNames, Group, Implied

__all__ = ["ModelParameters"]


class ModelParameters(BaseModel):
    """Parameters of the built-in models."""

    model: Annotated[
        str,
        Field(
            description="mlp, resnet_tabular, cnn, vit, autoencoder, text_classifier, timm:NAME, torchvision:NAME, or "
            "a registered model's name"
        ),
        Group("model"),
    ] = "mlp"
    activation: Annotated[
        str,
        AllowedNames(tuple(ACTIVATIONS)),
        Field(description="activation function of the hidden layers"),
        Group("model"),
        when_hidden_layers_use("activation"),
    ] = "relu"
    init: Annotated[
        str,
        AllowedNames(tuple(INITIALISATIONS)),
        Field(description="initialisation of the weights; default is PyTorch's own"),
        Group("model"),
        when_hidden_layers_use("init"),
    ] = "default"
    dropout: Annotated[
        float,
        Field(ge=0, lt=1, description="fraction of hidden units dropped in training; 0 is off"),
        Group("model"),
        when_hidden_layers_use("dropout"),
    ] = 0.0
    batch_norm: Annotated[
        bool,
        Field(description="batch normalisation before each activation"),
        Group("model"),
        when_hidden_layers_use("batch_norm"),
    ] = False
    layer_norm: Annotated[
        bool,
        Field(description="layer normalisation before each activation, instead of batch_norm"),
        Group("model"),
        Implied(),
        when_hidden_layers_use("layer_norm"),
    ] = False
    depth: Annotated[
        int,
        Field(
            ge=0,
            le=16,
            description="number of hidden layers, or of residual or transformer blocks; of an autoencoder, in the "
            "encoder and in the decoder each",
        ),
        Group("mlp"),
        when_shape_uses("depth"),
    ] = 2
    width: Annotated[
        int,
        Field(ge=1, le=65536, description="units of the widest hidden layer; of vit, numbers of each patch"),
        Group("mlp"),
        when_shape_uses("width", 1, unless_budget=True),
    ] = 128
    parameter_budget: Annotated[
        int | None,
        Field(
            ge=1,
            le=10**10,
            description="instead of width: the approximate number of weights and biases; the width follows from it",
        ),
        Group("mlp"),
        when_shape_uses("parameter_budget", 1),
    ] = None
    width_profile: Annotated[
        str,
        AllowedNames(("uniform", "decreasing", "increasing")),
        Field(
            description="widths of the layers: all equal, or decreasing from width or increasing to it in equal steps"
        ),
        Group("mlp"),
        when_shape_uses("width_profile", 2),
    ] = "uniform"
    widths: Annotated[
        str | None,
        Field(
            description="instead of depth, width and width_profile: units of each hidden layer, as in 512-256, or as a "
            "list",
        ),
        JoinedNumbers("-", high=99_999, most=16),
        Group("mlp"),
        when_model_uses("widths"),
    ] = None
    hidden_factor: Annotated[
        float,
        Field(
            gt=0, le=16, description="units of a residual or transformer block's hidden layer, as a multiple of width"
        ),
        Group("resnet_tabular"),
        when_shape_uses("hidden_factor", 1),
    ] = 2.0
    residual_dropout: Annotated[
        float,
        Field(ge=0, lt=1, description="fraction of a residual block's outputs dropped in training; 0 is off"),
        Group("resnet_tabular"),
        when_hidden_layers_use("residual_dropout"),
    ] = 0.0
    embedding_factor: Annotated[
        float | None,
        Field(
            gt=0,
            le=100,
            description="numbers that a table's category of K codes is embedded in: factor * K ** 0.56, at most 600; "
            "by default 1.6",
        ),
        Group("table"),
        when_model_uses("embedding_factor"),
    ] = None
    numeric_embedding: Annotated[
        str | None,
        AllowedNames(("periodic", "piecewise_linear")),
        Field(description="embedding of each number of a table: of its sines and cosines, or of its place among bins"),
        Group("table"),
        when_model_uses("numeric_embedding"),
    ] = None
    numeric_embedding_size: Annotated[
        int,
        Field(ge=1, le=1024, description="numbers that each number is embedded in"),
        Group("table"),
        when_numbers_are_embedded("numeric_embedding_size"),
    ] = 16
    periodic_frequencies: Annotated[
        int,
        Field(ge=1, le=1024, description="learned frequencies of each number's sines and cosines"),
        Group("table"),
        when_numbers_are_embedded("periodic_frequencies", "periodic"),
    ] = 16
    periodic_sigma: Annotated[
        float,
        Field(gt=0, le=1000, description="standard deviation that the frequencies are drawn with"),
        Group("table"),
        when_numbers_are_embedded("periodic_sigma", "periodic"),
    ] = 0.1
    numeric_bins: Annotated[
        int,
        Field(ge=1, le=1024, description="bins of each number's range"),
        Group("table"),
        when_numbers_are_embedded("numeric_bins", "piecewise_linear"),
    ] = 16
    pooling: Annotated[
        str,
        AllowedNames(("mean", "attention", "gru")),
        Field(description="how a text's tokens become one vector: their mean, weighted or not, or a GRU's last state"),
        Group("text"),
        when_model_uses("pooling"),
    ] = "mean"
    token_embedding_size: Annotated[
        int,
        Field(ge=1, le=4096, description="numbers that each token is embedded in"),
        Group("text"),
        when_model_uses("token_embedding_size"),
    ] = 64
    gru_size: Annotated[
        int,
        Field(ge=1, le=4096, description="numbers of the GRU's state"),
        Group("text"),
        WHEN_GRU_POOLS,
    ] = 64
    latent_size: Annotated[
        int,
        Field(ge=1, le=65536, description="numbers into which the encoder compresses a sample"),
        Group("autoencoder"),
        when_model_uses("latent_size"),
    ] = 32
    conv_layers: Annotated[
        int,
        Field(
            ge=1,
            le=6,
            description="number of convolution blocks, each of which halves height and width; from the fourth on only "
            "while both are at least 2",
        ),
        Group("cnn"),
        when_blocks_use("conv_layers"),
    ] = 2
    channels: Annotated[
        int,
        Field(ge=1, le=1024, description="channels of the first block; each further block doubles them"),
        Group("cnn"),
        when_blocks_use("channels"),
    ] = 32
    block_channels: Annotated[
        str | None,
        Field(
            description="instead of conv_layers and channels: channels of each block, as in 32-64-128, or as a list",
        ),
        JoinedNumbers("-", high=9_999, most=6),
        Group("cnn"),
        when_model_uses("block_channels"),
    ] = None
    kernel_size: Annotated[
        int,
        Field(ge=1, le=11, description="side of the convolution window in pixels"),
        Group("cnn"),
        when_model_uses("kernel_size"),
    ] = 3
    residual: Annotated[
        bool,
        Field(description="blocks of two convolutions, whose sum with the block's input goes on"),
        Group("cnn"),
        Implied(),
        when_model_uses("residual"),
    ] = False
    global_pooling: Annotated[
        bool,
        Field(description="the mean of each channel over the image goes on from the last block, not every pixel"),
        Group("cnn"),
        Implied(),
        when_model_uses("global_pooling"),
    ] = False
    dense_width: Annotated[
        int,
        Field(ge=0, le=65536, description="units of the dense layer after the convolutions; 0 is off"),
        Group("cnn"),
        when_model_uses("dense_width"),
    ] = 64
    patch_size: Annotated[
        int,
        Field(
            ge=1, le=256, description="side of the square patches of an image in pixels, a divisor of both its sides"
        ),
        Group("vit"),
        when_shape_uses("patch_size", 1),
    ] = 4
    heads: Annotated[
        int,
        Field(ge=1, le=256, description="number of attention heads, a divisor of width"),
        Group("vit"),
        when_shape_uses("heads", 1),
    ] = 4
