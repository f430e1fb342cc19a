"""Vision transformers, against torch's own layers, alone and stacked."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hpo.config.cohort_key import is_measured, stack_key
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError
from hpo.training.learner import ModuleLearner
from hpo.training.member import Member
from hpo.training.models import build_model, parameter_count
from hpo.training.stacked.check import find_difference
from hpo.training.stacked.learner import StackedLearner
from hpo.training.vision_transformer import TransformerBlock

SHAPE = (3, 8, 12)
SMALL = {"model": "vit", "width": 8, "heads": 2, "batch_size": 16}


def build(**parameters) -> nn.Module:
    return build_model(TrialConfig(**SMALL | parameters), SHAPE, 5)


def torchs_layer(block: TransformerBlock, activation: nn.Module, heads: int) -> nn.Module:
    """Torch's encoder layer with the weights of a block."""
    (first, attention, _), (second, enter, _, _, leave, _) = block.attention, block.dense
    width, hidden = enter.in_features, enter.out_features
    layer = nn.TransformerEncoderLayer(
        width, heads, hidden, 0.0, activation, batch_first=True, norm_first=True, dtype=torch.float64
    )
    names = {
        "norm1": first, "norm2": second, "linear1": enter, "linear2": leave, "self_attn.out_proj": attention.outputs
    }  # fmt: skip
    state = {f"{name}.{key}": value for name, part in names.items() for key, value in part.state_dict().items()}
    q, k, v = attention.queries, attention.keys, attention.values
    state["self_attn.in_proj_weight"] = torch.cat([q.weight, k.weight, v.weight])
    state["self_attn.in_proj_bias"] = torch.cat([q.bias, torch.zeros_like(q.bias), v.bias])
    layer.load_state_dict(state)
    return layer


@pytest.mark.parametrize(("activation", "own"), [("gelu", nn.GELU()), ("silu", nn.SiLU())])
def test_it_is_made_of_torchs_encoder_layers(activation, own):
    model = build(activation=activation, depth=2, hidden_factor=1.5).double()
    x = torch.randn(7, *SHAPE, dtype=torch.float64)
    patches = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)  # (7, 6, 48)
    tokens = F.linear(patches, model.patches.weight.flatten(1), model.patches.bias) + model.positions
    for block in model.blocks:
        tokens = torchs_layer(block, own, 2)(tokens)
    expected = model.outputs(model.norm(tokens).mean(1))
    torch.testing.assert_close(model(x), expected)


def test_each_layer_has_weights_of_its_own():
    first, second = build(depth=2, init="xavier").blocks
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.ndim == 1 or not torch.equal(one, other)
    queries = first.attention[1].queries
    assert not queries.bias.any()
    assert queries.weight.std().item() == pytest.approx((2 / (8 + 8)) ** 0.5, rel=0.2)


def test_parameters_shape_it():
    deep, wide = build(depth=3, dropout=0.2, activation="selu"), build(patch_size=2, width=12, heads=3)
    assert len(deep.blocks) == 3
    assert [type(part) for part in deep.blocks[0].dense] == [
        *(nn.LayerNorm, nn.Linear, nn.SELU, nn.AlphaDropout, nn.Linear, nn.Dropout)
    ]
    assert (wide.positions.shape, wide.patches.kernel_size) == ((24, 12), (2, 2))
    assert parameter_count(build(depth=0)) == 3 * 8 * 12 * 5 + 5


@pytest.mark.parametrize(
    ("parameters", "shape", "words"),
    [
        ({}, (20,), r"model = 'vit': needs images, but a sample has shape \(20,\); use model = 'mlp'"),
        (
            {"patch_size": 5},
            SHAPE,
            "patch_size = 5: does not divide the sides of a picture of 8 x 12; what does: 1, 2, 4$",
        ),
    ],
)
def test_samples_that_it_refuses(parameters, shape, words):
    with pytest.raises(ConfigError, match=words):
        build_model(TrialConfig(**SMALL | parameters), shape, 5)


@pytest.mark.parametrize(
    "parameters", [{"dropout": 0.1}, {"activation": "prelu"}, {"activation": "selu", "dropout": 0.3}]
)
def test_a_stack_computes_what_each_computes_alone(parameters):
    """With the same masks of dropout, in training and evaluation; see `find_difference`."""
    modules = [build(**parameters, seed=seed).double() for seed in range(2)]
    assert find_difference(modules, torch.randn(6, *SHAPE, dtype=torch.float64), SHAPE) is None


def test_stacked_steps_are_those_alone():
    configs = [TrialConfig(**SMALL, optimizer="adamw", weight_decay=0.1 * i, seed=i) for i in range(2)]
    assert is_measured(configs[0])
    assert stack_key(configs[0]) == stack_key(configs[1]) is not None
    x, y, device = torch.randn(16, *SHAPE), torch.arange(16) % 5, torch.device("cpu")
    together = StackedLearner([Member(each, i) for i, each in enumerate(configs)], SHAPE, 5, device)
    learners = [(ModuleLearner(Member(each), SHAPE, 5, device), [[0.01] * 3]) for each in configs]
    for learner, rates in [(together, [[0.01] * 3] * 2), *learners]:
        learner.begin_epoch(48, rates)
        for _ in range(3):
            learner.step(x, y)
        learner.end_epoch()
    for member, (learner, _) in zip(together.members, learners, strict=True):
        found, expected = together.weights(member), learner.weights(learner.members[0])
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, atol=2e-5, rtol=1e-4)
