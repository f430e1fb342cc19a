from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.config.model_size import count_dense_parameters, resolve_width
from hpo.config.trial_config import TrialConfig
from hpo.errors import RequestError
from hpo.study.input.study_file import parse_definition
from hpo.training.models import build_model, parameter_count

SHAPE, CLASSES = (1, 6, 6), 4


def count(config: TrialConfig) -> int:
    return parameter_count(build_model(config, SHAPE, CLASSES))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    model=st.sampled_from(["mlp", "autoencoder"]),
    depth=st.integers(1, 5),
    profile=st.sampled_from(["uniform", "decreasing", "increasing"]),
    norm=st.sampled_from([{}, {"batch_norm": True}, {"layer_norm": True}]),
    activation=st.sampled_from(["relu", "prelu"]),
    budget=st.integers(1, 20_000),
)
def test_the_width_is_the_one_nearest_to_the_budget(
    model: str, depth: int, profile: str, norm: dict[str, bool], activation: str, budget: int
) -> None:
    shape = {"depth": depth, "width_profile": profile, "latent_size": 3, "parameter_budget": budget}
    given_config = TrialConfig(model=model, activation=activation, **norm, **shape)
    found = resolve_width(given_config, SHAPE, CLASSES)
    mine = count(given_config)
    for width in (found.width - 1, found.width + 1):
        if width:
            assert abs(count(found.model_copy(update={"parameter_budget": None, "width": width})) - budget) >= abs(
                mine - budget
            )
    assert count_dense_parameters(found, 36, 36 if model == "autoencoder" else CLASSES) == mine
    assert resolve_width(found, SHAPE, CLASSES) == found


def test_without_a_budget_nothing_changes() -> None:
    for config in (TrialConfig(), TrialConfig(depth=0, parameter_budget=100), TrialConfig(model="cnn")):
        assert resolve_width(config, SHAPE, CLASSES) is config


def test_under_a_budget_width_has_no_effect() -> None:
    assert "width" not in TrialConfig(parameter_budget=1000).effective()
    assert TrialConfig(parameter_budget=1000).effective()["parameter_budget"] == 1000
    assert {"width", "parameter_budget"}.isdisjoint(TrialConfig(depth=0, parameter_budget=1000).effective())
    assert "parameter_budget" not in TrialConfig(widths="8-4", parameter_budget=1000).effective()


@pytest.mark.parametrize("model", ["mlp", "autoencoder"])
def test_a_budget_that_no_width_can_keep_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"parameter_budget = 500: layers of one unit already have \d+ param"):
        parse_definition({"parameters": {"model": model, "parameter_budget": [500, 30_000]}}, "s", tmp_path)
    parse_definition({"parameters": {"model": model, "parameter_budget": [3_000, 30_000]}}, "s", tmp_path)
