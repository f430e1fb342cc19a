"""Models of tables: what each layer computes, from the papers' formulas, and how many parameters there are."""

from itertools import product
from statistics import NormalDist

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hpo.config.model_size import embedding_sizes, resolve_width
from hpo.config.trial_config import TrialConfig, parameter_rows
from hpo.datasets import SampleShape
from hpo.errors import ConfigError, RequestError
from hpo.training.models import build_model, parameter_count, restore_model
from hpo.training.tabular_models import FeatureEmbedding, PeriodicEmbedding, PiecewiseLinearEmbedding

SHAPE = SampleShape((5,), categories=(4, 9))  # three numbers, and two categories


def samples(n: int = 7) -> torch.Tensor:
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, count, n) for count in SHAPE.categories], 1)
    return torch.from_numpy(np.concatenate([rng.normal(size=(n, 3)), codes], 1)).float()


def test_sizes_of_embeddings():
    shape = SampleShape((6,), categories=(2, 10, 100, 1000, 10**6))
    assert embedding_sizes(TrialConfig(), shape) == [2, 6, 21, 77, 600]  # those of fastai's emb_sz_rule
    assert embedding_sizes(TrialConfig(embedding_factor=0.1), shape) == [1, 1, 1, 5, 229]


def test_numbers_pass_and_categories_are_looked_up():
    layer, x = FeatureEmbedding(TrialConfig(), SHAPE), samples()
    found = layer(x)
    assert found.shape == (7, 3 + 3 + 5)
    assert torch.equal(found[:, :3], x[:, :3])
    for sample, row in zip(x, found, strict=True):
        assert torch.equal(row[3:6], layer.tables[0][int(sample[3])])
        assert torch.equal(row[6:], layer.tables[1][int(sample[4])])


@pytest.mark.parametrize("model", ["mlp", "resnet_tabular"])
def test_an_unknown_category_is_zero_and_stays_so(model):
    config = TrialConfig(model=model, width=8, optimizer="adamw", weight_decay=0.1)
    module, x = build_model(config, SHAPE, 2), samples(64)
    x[:32, 3:] = 0
    (embedding,) = [part for part in module.modules() if isinstance(part, FeatureEmbedding)]
    assert torch.equal(embedding(x[:1])[0, 3:], torch.zeros(8))
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(x).square().sum().backward()
        optimizer.step()
    assert all(not table[0].any() and table[1:].any() for table in embedding.tables)


def test_a_table_of_categories_alone():
    shape = SampleShape((2,), categories=(4, 9))
    module = build_model(TrialConfig(numeric_embedding="periodic", width=4), shape, 2)
    assert module(samples()[:, 3:]).shape == (7, 2)


def test_periodic_embedding_is_the_papers():
    torch.manual_seed(0)
    layer = PeriodicEmbedding(3, 4, 0.5, 6)
    x = samples()[:, :3].double().numpy()
    c, w, b = (each.detach().double().numpy() for each in layer.parameters())
    found = layer(samples()[:, :3]).detach().numpy()
    for feature in range(3):
        angles = 2 * np.pi * x[:, feature, None] * c[feature]
        expected = np.concatenate([np.cos(angles), np.sin(angles)], 1) @ w[feature] + b[feature]
        assert np.allclose(found[:, feature * 6 : feature * 6 + 6], np.maximum(expected, 0), atol=1e-5)
    drawn = PeriodicEmbedding(100, 100, 0.5, 1).frequencies
    assert drawn.std().item() == pytest.approx(0.5, rel=0.05)


def test_piecewise_linear_embedding_is_the_papers():
    """Each bin is 1 below the number and 0 above it; the outermost bins are open."""
    layer = PiecewiseLinearEmbedding(1, [-1.0, 0.0, 2.0, 3.0], 3)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.eye(3)[None])
        layer.linear.bias.zero_()
    found = layer(torch.tensor([[-0.5], [0.5], [2.5], [5.0], [-3.0]])).detach()
    relu = torch.relu(torch.tensor([[0.5, 0, -0.0], [1, 0.25, 0], [1, 1, 0.5], [1, 1, 3], [-2, 0, 0]]))
    assert torch.allclose(found, relu)


@pytest.mark.parametrize(
    ("parameters", "first", "last"),
    [
        ({}, NormalDist().inv_cdf(0.01), NormalDist().inv_cdf(0.99)),
        (
            {"numeric_scaling": "quantile", "input_scaling": "unit"},
            NormalDist().inv_cdf(0.01),
            -NormalDist().inv_cdf(0.01),
        ),
        ({"input_scaling": "unit"}, 0, 1),
        ({"input_scaling": "symmetric"}, -1, 1),
    ],
)
def test_bins_are_quantiles_of_what_the_scaling_aims_at(parameters, first, last):
    config = TrialConfig(numeric_embedding="piecewise_linear", numeric_bins=4, **parameters)
    edges = FeatureEmbedding(config, (3,)).number_embedding.edges.tolist()
    assert len(edges) == 5
    assert (edges[0], edges[-1]) == pytest.approx((first, last))
    assert edges[2] == pytest.approx((first + last) / 2, abs=1e-6)


def test_residual_network():
    config = TrialConfig(
        model="resnet_tabular",
        depth=2,
        width=8,
        hidden_factor=1.5,
        dropout=0.2,
        residual_dropout=0.1,
        activation="gelu",
    )
    module = build_model(config, SHAPE, 3).eval()
    embedding, first, *blocks, norm, activation, last = module
    kinds = [nn.BatchNorm1d, nn.Linear, nn.GELU, nn.Dropout, nn.Linear, nn.Dropout]
    assert [[type(part) for part in block.layers] for block in blocks] == [kinds] * 2
    assert [block.layers[1].out_features for block in blocks] == [12, 12]
    assert [block.layers[i].p for block in blocks for i in (3, 5)] == [0.2, 0.1] * 2
    hidden = first(embedding(samples()))
    for block in blocks:
        hidden = hidden + block.layers(hidden)
    assert torch.equal(module(samples()), last(activation(norm(hidden))))


def test_residual_network_without_blocks_is_linear():
    module = build_model(TrialConfig(model="resnet_tabular", depth=0), (5,), 3)
    assert [type(part) for part in module] == [nn.Linear]
    assert (
        TrialConfig(model="resnet_tabular", depth=0).effective().keys().isdisjoint({"activation", "width", "dropout"})
    )


def test_images_are_flattened_but_not_embedded():
    assert build_model(TrialConfig(model="resnet_tabular", width=4), (1, 3, 3), 2)(torch.zeros(2, 1, 3, 3)).shape == (
        2,
        2,
    )
    for model in ("mlp", "resnet_tabular"):
        with pytest.raises(ConfigError, match=r"numeric_embedding = 'periodic': needs the features of a table"):
            build_model(TrialConfig(model=model, numeric_embedding="periodic"), (1, 3, 3), 2)


def test_an_autoencoder_refuses_categories():
    with pytest.raises(ConfigError, match="2 of the 5 features are categories"):
        build_model(TrialConfig(model="autoencoder"), SHAPE, 2)


def test_a_residual_network_needs_two_samples():
    with pytest.raises(ConfigError, match="batch_size = 1: model = 'resnet_tabular' needs at least 2"):
        TrialConfig(model="resnet_tabular", batch_size=1)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("embedding", [None, "periodic", "piecewise_linear"])
@pytest.mark.parametrize("shape", [SHAPE, SampleShape((5,))])
def test_a_budget_counts_embeddings(shape, embedding, batch_norm):
    """The width whose model has the number of parameters nearest to the budget, counted in the model itself."""
    config = TrialConfig(
        parameter_budget=3000, depth=2, numeric_embedding=embedding, numeric_embedding_size=6, batch_norm=batch_norm
    )
    width = resolve_width(config, shape, 3).width

    def miss(width: int) -> int:
        sized = TrialConfig(**config.effective() | {"width": width, "parameter_budget": None})
        return abs(parameter_count(build_model(sized, shape, 3)) - 3000)

    assert miss(width) == min(miss(each) for each in (width - 1, width, width + 1))
    assert miss(width) < 60


def test_a_mean_and_a_variance_for_each_target():
    config = TrialConfig(task="regression", loss="gaussian_nll", width=4)
    for model in ("mlp", "resnet_tabular"):
        sized = TrialConfig(**config.effective() | {"model": model})
        assert build_model(sized, SHAPE, 2)(samples()).shape == (7, 4)


@pytest.mark.parametrize("model", ["mlp", "resnet_tabular"])
@pytest.mark.parametrize("embedding", ["periodic", "piecewise_linear"])
def test_weights_are_restored(model, embedding, tmp_path):
    config = TrialConfig(model=model, numeric_embedding=embedding, width=4)
    module = build_model(config, SHAPE, 2).eval()
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    again = TrialConfig(**config.effective() | {"seed": 1})
    restored = restore_model(again, SHAPE, 2, tmp_path / "weights.safetensors").eval()
    assert torch.equal(restored(samples()), module(samples()))
    with pytest.raises(RequestError, match="do not fit the model"):
        restore_model(again, SampleShape((5,), categories=(4, 8)), 2, tmp_path / "weights.safetensors")


def test_todays_configurations_have_no_new_parameters():
    assert not TrialConfig().effective().keys() & {"embedding_factor", "numeric_embedding", "numeric_bins"}
    assert TrialConfig(numeric_embedding="none") == TrialConfig()


def test_which_parameters_matter():
    names = {row["name"] for row in parameter_rows("resnet_tabular")}
    assert {"hidden_factor", "residual_dropout", "periodic_sigma", "numeric_bins", "embedding_factor"} < names
    assert names.isdisjoint({"batch_norm", "widths", "parameter_budget", "width_profile"})
    for kind, own in (("periodic", "periodic_sigma"), ("piecewise_linear", "numeric_bins")):
        for model, other in product(("mlp", "resnet_tabular"), ("periodic_sigma", "numeric_bins")):
            values = TrialConfig(model=model, numeric_embedding=kind).effective()
            assert (other in values) == (other == own)
            assert values["numeric_embedding_size"] == 16
