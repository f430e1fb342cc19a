import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

import hpo
from hpo.config import registry
from hpo.config.choices import OPTIMIZERS
from hpo.config.trial_config import TrialConfig, all_parameters, parameter_rows
from hpo.errors import ConfigError, RegistryError
from hpo.space import Space

DESIGN_TABLE = """
validation split_seed input_scaling numeric_scaling task augment crop_padding cutout_size randaugment_operations
randaugment_magnitude model activation init dropout batch_norm layer_norm depth width parameter_budget
width_profile widths hidden_factor residual_dropout embedding_factor numeric_embedding numeric_embedding_size
periodic_frequencies periodic_sigma numeric_bins pooling token_embedding_size gru_size latent_size conv_layers
channels block_channels kernel_size residual global_pooling dense_width patch_size heads optimizer learning_rate
momentum beta1 beta2 rho epsilon weight_decay gradient_clip layer_learning_rate_decay asgd_decay asgd_power
asgd_start weight_averaging ema_decay swa_start schedule gamma step_epochs plateau_patience polynomial_power
restart_epochs restart_factor final_learning_rate final_learning_rate_ratio warmup_steps warmup_epochs warmup
pretrained freeze head_learning_rate head_learning_rate_ratio loss label_smoothing huber_delta class_weight
batch_size gradient_accumulation epochs precision patience min_delta seed init_seed order_seed
"""


def test_names_are_the_designs() -> None:
    assert list(all_parameters()) == DESIGN_TABLE.split()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr": 0.1}, ["'lr'", "`learning_rate`"]),
        ({"decay": 0.1}, ["`decay` is called `schedule` here"]),
        ({"hidden_layers": 3}, ["`depth`"]),
        ({"lr_scheduler": "cosine"}, ["`schedule`"]),
        ({"optimiser": "adam"}, ["did you mean 'optimizer'"]),
        ({"optimizer": "adamm"}, ["optimizer = 'adamm'", "did you mean 'adam'"]),
        ({"dropout": 1.0}, ["dropout = 1.0", "0 <= x < 1"]),
        ({"learning_rate": 0}, ["learning_rate = 0", "0 < x"]),
        ({"depth": 17}, ["depth = 17", "16"]),
        ({"epochs": 2.5}, ["epochs = 2.5", "whole number"]),
        ({"epochs": "2"}, ["epochs = '2'", "whole number", "str"]),
        ({"batch_norm": 1}, ["batch_norm = 1", "true or false"]),
        ({"depth": True}, ["depth = True", "bool"]),
        ({"learning_rate": float("nan")}, ["finite"]),
        ({"widths": "512,256"}, ["widths = '512,256'", "from 1 to 99999", "64-32"]),
        ({"schedule": "exponential", "final_learning_rate": 0.0}, ["exponential", "above 0"]),
        ({"batch_norm": True, "batch_size": 1}, ["batch_size = 1"]),
        ({"schedule": "plateau"}, ["schedule = 'plateau'", "did you mean 'reduce_on_plateau'"]),
        ({"gamma": 1.5}, ["gamma = 1.5", "0 < x <= 1"]),
        ({"gradient_accumulation": 0}, ["gradient_accumulation = 0", "1 <= x"]),
        ({"warmup_steps": 0.5}, ["warmup_steps = 0.5", "whole number"]),
        ({"batch_norm": True, "layer_norm": True}, ["batch_norm = true, layer_norm = true", "normalised once"]),
        ({"model": "vit", "heads": 3}, ["heads = 3: must be a divisor of width, which is 128"]),
        ({"model": "cnn", "conv_layers": 7}, ["conv_layers = 7", "1 <= x <= 6"]),
        ({"model": "cnn", "block_channels": "8-x"}, ["block_channels = '8-x': 'x' is no whole number from 1 to 9999"]),
        ({"model": "cnn", "block_channels": [8] * 7}, ["has 7 numbers, and at most 6 are valid"]),
        ({"model": "cnn", "block_channels": [8, 0]}, ["block_channels = [8, 0]: '0' is no whole number from 1"]),
        ({"widths": [0.5]}, ["widths = [0.5]: '0.5' is no whole number"]),
        ({"widths": ["64", "32"]}, ["a list of texts is several choices"]),
        ({"augment": "rotate"}, ["unknown 'rotate'; valid: flip, crop, cutout, randaugment; several", "flip+crop"]),
        ({"augment": "flip, crop"}, ["unknown 'flip, crop'", "joined by '+', as in flip+crop"]),
        ({"augment": ""}, ["unknown ''", "none turns it off"]),
        ({"augment": "none+flip"}, ["unknown 'none'"]),
        ({"augment": ["flip", "crop"]}, ["augment = ['flip', 'crop']: a list of texts is several", "joined by '+'"]),
        ({"augment": [["flip", "crop"]]}, ["a list of texts is several choices"]),
        ({"pretrained": "paint.py"}, ["pretrained = 'paint.py'", "end in .safetensors, .pth, .pt, .bin or .tar"]),
        ({"freeze": "head"}, ["freeze = 'head'", "valid: backbone, none"]),
        ({"weight_averaging": "polyak"}, ["valid: ema, none, swa"]),
        ({"activation": "swish"}, ["did you mean 'silu'"]),
        ({"optimizer": "adamwsf"}, ["did you mean 'schedule_free_adamw'"]),
        ({"schedule": "torch.optim.lr_scheduler.CosineAnnealingLR"}, ["did you mean 'cosine'"]),
        ({"ema": True}, ["unknown parameter 'ema': it is a value; write weight_averaging = 'ema'"]),
        ({"SWA": True}, ["weight_averaging = 'swa'"]),
        ({"nesterov": True}, ["optimizer = 'nesterov'"]),
        ({"swa_lr": 0.1}, ["weight_averaging = 'swa' has no rate of its own"]),
        ({"l2": 0.1}, ["unknown parameter 'l2': it is not quite weight_decay; a penalty"]),
    ],
)
def test_refusals_name_the_value_and_what_is_valid(given: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        TrialConfig(**given)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_unknown_model_is_refused() -> None:
    with pytest.raises(RegistryError, match="unknown model 'mpl'; did you mean 'mlp'"):
        TrialConfig(model="mpl")


def test_a_parameters_type_comes_from_the_parameter() -> None:
    config = TrialConfig(learning_rate=1, epochs=3.0)
    assert (type(config.learning_rate), type(config.epochs)) == (float, int)


@pytest.mark.parametrize(
    ("optimizer", "momentum"), [("sgd", 0.0), ("momentum", 0.9), ("nesterov", 0.9), ("rmsprop", 0.0)]
)
def test_momentum_default_follows_the_optimizer(optimizer: str, momentum: float) -> None:
    assert TrialConfig(optimizer=optimizer).momentum == momentum
    assert TrialConfig(optimizer=optimizer, momentum=0.5).momentum == 0.5


@pytest.mark.parametrize(("schedule", "gamma"), [("step", 0.1), ("reduce_on_plateau", 0.1), ("exponential", None)])
def test_gamma_default_follows_the_schedule(schedule: str, gamma: float | None) -> None:
    assert TrialConfig(schedule=schedule).gamma == TrialConfig(schedule=schedule, gamma="none").gamma == gamma
    assert TrialConfig(schedule=schedule, gamma=0.5).effective()["gamma"] == 0.5


def test_a_configuration_without_them_is_what_it_was() -> None:
    """So are the keys of cohorts and checkpoints that are made of it."""
    new = {"gamma", "step_epochs", "plateau_patience", "polynomial_power", "restart_epochs", "restart_factor"}
    new |= {"warmup_steps", "warmup_epochs", "gradient_accumulation", "min_delta"}
    for schedule in ("constant", "linear", "exponential", "cosine", "one_cycle"):
        assert not new & set(TrialConfig(schedule=schedule, patience=3).effective())


@pytest.mark.parametrize(
    ("given", "idle"),
    [
        ({"optimizer": "adam"}, {"momentum"}),
        ({"optimizer": "sgd"}, {"beta1", "beta2", "epsilon"}),
        ({"optimizer": "lbfgs"}, {"momentum", "weight_decay", "gradient_clip", "epsilon"}),
        ({"depth": 0}, {"width", "width_profile", "activation", "dropout", "batch_norm"}),
        ({"depth": 1}, {"width_profile"}),
        ({"widths": "64-32"}, {"depth", "width", "width_profile"}),
        ({"model": "mlp"}, {"channels", "conv_layers", "kernel_size", "dense_width"}),
        ({"model": "cnn", "block_channels": [8, 16]}, {"conv_layers", "channels"}),
        ({"model": "vit", "depth": 0}, {"patch_size", "heads", "width", "hidden_factor", "activation", "dropout"}),
        ({"model": "vit"}, {"batch_norm", "layer_norm", "channels", "residual", "width_profile"}),
        ({"model": "cnn"}, {"depth", "width", "widths", "width_profile"}),
        ({"schedule": "constant"}, {"final_learning_rate", "final_learning_rate_ratio"}),
        ({"schedule": "linear", "final_learning_rate": 0.1}, {"final_learning_rate_ratio"}),
        ({"schedule": "one_cycle", "warmup_steps": 3}, {"warmup", "warmup_steps", "warmup_epochs"}),
        ({"warmup_epochs": 1}, {"warmup"}),
        ({"warmup_steps": 10, "warmup_epochs": 1}, {"warmup", "warmup_epochs"}),
        ({"schedule": "exponential", "gamma": 0.9}, {"final_learning_rate", "final_learning_rate_ratio"}),
        ({"schedule": "step", "final_learning_rate": 0.1}, {"final_learning_rate", "final_learning_rate_ratio"}),
        ({"schedule": "reduce_on_plateau"}, {"final_learning_rate_ratio", "step_epochs", "polynomial_power"}),
        ({"schedule": "cosine", "gamma": 0.5, "step_epochs": 1}, {"gamma", "step_epochs", "restart_factor"}),
        ({"min_delta": 0.1}, {"min_delta"}),
        ({"optimizer": "lbfgs", "gradient_accumulation": 4}, {"gradient_accumulation"}),
        (
            {"optimizer": "rprop", "schedule": "cosine", "warmup": 0.1},
            {"schedule", "warmup", "final_learning_rate_ratio"},
        ),
        ({"optimizer": "rprop", "schedule": "step"}, {"schedule", "step_epochs", "gamma"}),
        ({"optimizer": "rprop", "schedule": "reduce_on_plateau"}, {"plateau_patience", "min_delta", "warmup_steps"}),
        ({"loss": "mse"}, {"label_smoothing"}),
    ],
)
def test_what_has_no_effect_is_known(given: dict[str, object], idle: set[str]) -> None:
    assert not idle & set(TrialConfig(**given).effective())


@pytest.mark.parametrize(
    ("given", "widths"),
    [
        ({"depth": 3, "width": 90}, (90, 90, 90)),
        ({"depth": 3, "width": 90, "width_profile": "decreasing"}, (90, 60, 30)),
        ({"depth": 3, "width": 90, "width_profile": "increasing"}, (30, 60, 90)),
        ({"depth": 0}, ()),
        ({"widths": "512-256"}, (512, 256)),
        ({"depth": 3, "width": 1, "width_profile": "decreasing"}, (1, 1, 1)),
    ],
)
def test_hidden_widths(given: dict[str, object], widths: tuple[int, ...]) -> None:
    assert TrialConfig(**given).hidden_widths == widths


@given(st.sampled_from(sorted(OPTIMIZERS)), st.integers(0, 16), st.sampled_from(["constant", "cosine"]))
def test_effective_parameters_make_the_same_configuration(optimizer: str, depth: int, schedule: str) -> None:
    config = TrialConfig(optimizer=optimizer, depth=depth, schedule=schedule)
    assert TrialConfig(**config.effective()).effective() == config.effective()


@pytest.mark.parametrize(
    ("model", "name"), [("mlp", "layer_norm"), ("cnn", "layer_norm"), ("cnn", "residual"), ("cnn", "global_pooling")]
)
def test_a_default_that_goes_without_saying_leaves_configurations_as_they_were(model: str, name: str) -> None:
    config = TrialConfig(model=model)
    assert name not in config.effective()
    assert TrialConfig(model=model, **{name: False}).effective() == config.effective()
    assert TrialConfig(model=model, **{name: True}).effective() == {**config.effective(), name: True}
    assert config.effective(named=[name]) == {**config.effective(), name: False}
    space = Space(model=model, **{name: [False, True]})
    assert space.params(config.effective(space.domains)) == {name: False}


class Blocks(BaseModel):
    blocks: int = Field(2, ge=1, le=8, description="residual blocks")
    stem: bool = True


def test_a_models_own_parameters_join_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.model("resnet_of_config_test", parameters=Blocks, uses=["activation"])(lambda config, shape, classes: None)
    config = TrialConfig(model="resnet_of_config_test", blocks=3)
    assert (config.blocks, config.stem) == (3, True)
    assert {"blocks", "stem", "activation"} <= set(config.effective())
    assert not {"dropout", "init", "depth"} & set(config.effective())
    with pytest.raises(ConfigError, match="blocks = 9"):
        TrialConfig(model="resnet_of_config_test", blocks=9)
    with pytest.raises(ConfigError, match="did you mean 'blocks'"):
        TrialConfig(model="resnet_of_config_test", block=2)
    with pytest.raises(ConfigError, match="unknown parameter 'blocks'"):
        TrialConfig(blocks=2)
    assert "blocks" in {row["name"] for row in parameter_rows("resnet_of_config_test")}


def test_a_models_parameter_may_not_take_the_name_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clash(BaseModel):
        dropout: float = 0.5

    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.model("clash", parameters=Clash)(lambda config, shape, classes: None)
    with pytest.raises(ConfigError, match="'dropout' is one of ours"):
        TrialConfig(model="clash")


def test_parameters_of_a_model_are_those_that_may_matter() -> None:
    names = {row["name"] for row in parameter_rows("cnn")}
    assert {"channels", "activation", "optimizer"} <= names
    assert not {"depth", "width", "widths"} & names
