"""Augmentation of training images, against what each change is by definition."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hpo
from hpo.config.cohort_key import batch_key
from hpo.config.trial_config import TrialConfig, all_parameters
from hpo.datasets import Dataset, DatasetReference
from hpo.errors import ConfigError, RequestError
from hpo.space.parse import parse
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import Data, augment_data, prepare_data
from hpo.training.data_cache import DataCache
from hpo.training.loop import train
from hpo.training.member import Member
from hpo.training.settings import TrainSettings
from tests.training.resumable import bits, one, stop_after

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(1, 256, (60, 12, 8, 3), dtype=np.uint8)  # no pixel is black
LABELS = np.arange(60) % 3


def prepare(config: TrialConfig, x: object = COLOURS) -> Data:
    return prepare_data(Dataset(train=(x, LABELS), classes=3), config, CPU, "pictures")


def config(**parameters: object) -> TrialConfig:
    rest = {"validation": 12, "epochs": 2, "batch_size": 16, "model": "cnn", "channels": 4, "conv_layers": 1}
    return TrialConfig(**{**rest, "input_scaling": "unit", **parameters})


def first_batch(chosen: TrialConfig, x: object = COLOURS) -> tuple[Tensor, Tensor]:
    """Return the images of the first batch, as they are and augmented."""
    data = prepare(chosen, x)
    plain = augment_data(data, chosen.model_copy(update={"augment": None}))
    return next(plain.batches(48, 1))[0], next(data.batches(48, 1))[0]


def test_flip_mirrors_each_image_or_leaves_it() -> None:
    before, after = first_batch(config(augment="flip"))
    kept = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    mirrored = [torch.equal(a.flip(2), b) for a, b in zip(before, after, strict=True)]
    assert all(a != b for a, b in zip(kept, mirrored, strict=True))
    assert 10 < sum(mirrored) < 38


@pytest.mark.parametrize("scaling", ["unit", "standard"])
def test_crop_moves_each_image_by_up_to_the_padding_and_fills_up_with_black(scaling: str) -> None:
    before, after = first_batch(config(augment="crop", crop_padding=0.25, input_scaling=scaling))
    data = prepare(config(input_scaling=scaling))
    black = torch.from_numpy((0 - data.scaling.shift) / data.scaling.scale).float().view(3, 1, 1)
    offsets = set()
    for a, b in zip(before, after, strict=True):
        padded = black.repeat(1, 12 + 6, 8 + 4)  # a quarter of 12 is 3 above and below, of 8 it is 2
        padded[:, 3:15, 2:10] = a
        found = [
            (i, j) for i in range(7) for j in range(5) if torch.allclose(padded[:, i : i + 12, j : j + 8], b, atol=1e-5)
        ]
        assert len(found) == 1
        offsets |= set(found)
    assert len(offsets) > 15
    assert {0, 6} <= {i for i, _ in offsets}


def test_cutout_sets_a_square_to_zero() -> None:
    square = COLOURS[:, :8]
    before, after = first_batch(config(augment="cutout", cutout_size=0.5, input_scaling="standard"), square)
    places = set()
    for a, b in zip(before, after, strict=True):
        rows, columns = torch.where((a != b).any(0))
        assert len(rows) == 16
        top, left = int(rows.min()), int(columns.min())
        assert (b[:, top : top + 4, left : left + 4] == 0).all()
        places.add((top, left))
    assert len(places) > 8


def test_randaugment_draws_for_each_image() -> None:
    same = np.repeat(COLOURS[:1], 60, 0)
    before, after = first_batch(config(augment="randaugment"), same)
    assert after.shape == before.shape
    assert len({image.numpy().tobytes() for image in after}) > 20
    assert after.min() >= -1e-6
    assert after.max() <= 1 + 1e-6


def test_randaugment_takes_grey_images_and_no_others_than_grey_and_colour() -> None:
    before, after = first_batch(config(augment="randaugment", randaugment_operations=1), COLOURS[..., 0])
    assert after.shape == before.shape == (48, 1, 12, 8)
    assert not torch.equal(before, after)
    with pytest.raises(ConfigError, match="RandAugment changes grey images and colours, but those of pictures have 2"):
        prepare(config(augment="randaugment"), COLOURS[..., :2])


def test_real_numbers_have_the_range_of_the_training_part() -> None:
    wide = COLOURS.astype(np.float32) * 10 - 500
    data = prepare(config(augment="crop", input_scaling="standard"), wide)
    (batch, _), low = next(data.batches(48, 1)), wide[..., :].min()
    edges = (torch.tensor(low) - torch.from_numpy(data.scaling.shift)) / torch.from_numpy(data.scaling.scale)
    for channel in range(3):
        assert batch[:, channel].min() == pytest.approx(float(edges[channel]), abs=0.05)


def test_the_changes_are_done_in_their_order() -> None:
    """A crop after a cutout may move the square of zeros beyond the border; a cutout after a crop is always whole."""
    square = COLOURS[:, :8]
    _, after = first_batch(config(augment="crop+cutout", crop_padding=0.5, cutout_size=0.5), square)
    _, before = first_batch(config(augment="cutout+crop", crop_padding=0.5, cutout_size=0.5), square)
    assert not torch.equal(after, before)


def test_images_follow_from_seed_epoch_and_step_alone_and_torchs_generators_stay() -> None:
    data = prepare(config(augment="crop+flip+randaugment+cutout"))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    batches = [x for x, _ in data.batches(16, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again = [x for x, _ in data.batches(16, 1)]
    assert all(map(torch.equal, batches, again))
    plain = data.x_train.clone()
    assert data.augmentation is not None
    changed = [data.augmentation(plain, seed, epoch, step) for seed, epoch, step in [(0, 1, 0), (1, 1, 0), (0, 2, 0)]]
    changed.append(data.augmentation(plain, 0, 1, 1))
    assert len({each.numpy().tobytes() for each in changed}) == 4
    assert torch.equal(plain, data.x_train)


@pytest.mark.usefixtures("one_thread")
def test_a_trial_goes_on_in_the_midst_of_an_epoch_to_the_same_bits(tmp_path: Path) -> None:
    given, path = config(augment="crop+flip", dropout=0.2), tmp_path / "0.pt"
    whole = one(given, prepare(given))
    stopped = one(given, prepare(given), CheckpointSpec(path, every=3600), should_stop=stop_after(4))
    assert stopped.status == "interrupted"
    assert bits(one(given, prepare(given), CheckpointSpec(path, resume=True))) == bits(whole)
    assert bits(one(config(dropout=0.2), prepare(config()))) != bits(whole)


@pytest.mark.usefixtures("one_thread")
def test_trials_of_a_stack_see_the_batches_that_they_see_alone() -> None:
    """Three share their samples, and each has images of its own: one as they are, two changed in different ways."""
    configs = [
        config(model="mlp", widths="8", optimizer="sgd", learning_rate=0.1, augment=augment)
        for augment in (None, "flip", "crop+cutout")
    ]
    stacks: list[int] = []

    class Stacks(Callback):
        def on_start(self, member: Member) -> None:
            stacks.append(member.stack)

    cache = DataCache(DatasetReference(name="pictures"), CPU)
    cache._dataset = Dataset(train=(COLOURS, LABELS), classes=3)
    data = [cache.get(each) for each in configs]
    assert len({id(each.x_train) for each in data}) == 1
    together = train(configs, data, TrainSettings(callbacks=[Stacks()]))
    assert stacks == [3, 3, 3]
    for chosen, on, result in zip(configs, data, together, strict=True):
        (alone,) = train([chosen], on)
        for row, expected in zip(result.history, alone.history, strict=True):
            assert row["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-5)
            assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-5)
    losses = {result.history[-1]["train_loss"] for result in together}
    assert len(losses) == 3
    assert len({batch_key(each) for each in configs}) == 3


@pytest.mark.usefixtures("own_entries")
def test_a_model_of_ones_own_gets_augmented_images_and_its_own_augmentation_comes_after() -> None:
    seen: list[Tensor] = []

    @hpo.model("own", augment=lambda x, _config: seen.append(x.clone()) or torch.zeros_like(x))
    def own(config: TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(288, classes))

    chosen = TrialConfig(model="own", augment="flip", validation=12, epochs=1, batch_size=48)
    data = prepare(chosen)
    result = one(chosen, data)
    assert torch.equal(seen[0], next(data.batches(48, 1))[0])
    assert result.status == "completed"


def test_bytes_in_batches_of_ones_own_are_augmented_and_other_numbers_have_no_black() -> None:
    x = torch.from_numpy(COLOURS[:48]).permute(0, 3, 1, 2)
    batches = [(x[:24], torch.arange(24) % 3), (x[24:], torch.arange(24) % 3)]

    def prepared(chosen: TrialConfig, kind: torch.dtype) -> Data:
        converted = [(part.to(kind), y) for part, y in batches]
        return prepare_data(Dataset(train=converted, validation=converted[0], classes=3), chosen, CPU, "batches")

    (first, _), (second, _) = prepared(config(augment="randaugment"), torch.uint8).batches(24, 1)
    assert not torch.equal(first, x[:24].float() / 255)
    assert not torch.equal(second, x[24:].float() / 255)
    with pytest.raises(ConfigError, match="RandAugment needs to know what is black and white, but batches gives"):
        prepared(config(augment="randaugment"), torch.float32)


def test_what_cannot_be_augmented_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"augment = 'flip': changes images, but a sample of pictures has shape \(8,"):
        prepare(config(model="mlp", augment="flip"), COLOURS.reshape(60, -1)[:, :8])
    with pytest.raises(ConfigError, match=r"augment = 'flip\+crop\+flip': has flip twice"):
        config(augment="flip+crop+flip")
    with pytest.raises(ConfigError, match="augment = 'mixup': unknown 'mixup'; valid: flip, crop"):
        config(augment="mixup")
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    with pytest.raises(RequestError, match=r"augment = 'flip': needs kornia; pip install 'torch-hpo\[images\]'"):
        prepare(config(augment="flip"))


def test_it_is_searched_as_any_parameter_and_its_strengths_only_where_they_matter() -> None:
    table = all_parameters()
    (domain,) = parse("augment", ["none", "flip", ["flip", "crop"]], table)
    assert domain.values == (
        "none",
        "flip",
        "flip+crop",
    )
    assert parse("augment", {"value": ["flip", "crop"]}, table)[0].value == "flip+crop"
    assert parse("augment", ["flip", "crop"], table)[0].values == ("flip", "crop")
    assert "augment" not in config().effective()
    assert {"augment", "crop_padding"} <= config(augment="crop").effective().keys()
    assert not {"cutout_size", "randaugment_magnitude"} & config(augment="crop").effective().keys()
