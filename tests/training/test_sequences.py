"""Whole numbers as inputs, samples of different lengths, texts, and samples that processes read in training."""

from __future__ import annotations

import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset as TorchDataset

from hpo.config import registry
from hpo.config.cohort_key import why_unstackable
from hpo.config.declaration import Declarations
from hpo.config.resampling import Division
from hpo.config.trial_config import TrialConfig, parameter_rows
from hpo.datasets import Dataset, Feature
from hpo.datasets.dataset import check_dataset
from hpo.datasets.labels import code_labels
from hpo.datasets.map_style import read_parts
from hpo.errors import ConfigError, DataError
from hpo.export.writer import preprocessing_of
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import Data, prepare_data
from hpo.training.loop import train
from hpo.training.member import Member, Metrics, TrainResult
from hpo.training.models import build_model
from hpo.training.settings import TrainSettings
from hpo.training.stacked import check
from hpo.training.stacked.check import Timing
from hpo.training.text_models import TextClassifier

CPU = torch.device("cpu")
LABELS = np.arange(60) % 3
CODES = np.random.default_rng(0).integers(0, 9, (60, 5))


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))

    @registry.model("codes", integers=True, uses=["dropout"])
    def codes(config: TrialConfig, shape: Any, classes: int) -> nn.Module:
        return nn.Sequential(
            nn.EmbeddingBag(shape.vocabulary or 50, 4), nn.Dropout(config.dropout), nn.Linear(4, classes)
        )


def config(**parameters: Any) -> TrialConfig:
    return TrialConfig(**{"model": "codes", "validation": 12, "batch_size": 8, "epochs": 2, **parameters})


# ---- integers


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, np.float32, torch.int32])
def test_whole_numbers_stay_as_they_are(kind: Any) -> None:
    x = torch.from_numpy(CODES).to(kind) if isinstance(kind, torch.dtype) else CODES.astype(kind)
    data = prepare_data(Dataset((x, LABELS), (x[:6], LABELS[:6])), config(input_scaling="unit"), CPU)
    assert data.x_train.dtype == data.x_val.dtype == data.test()[0].dtype == torch.int64
    assert torch.equal(data.x_val, torch.from_numpy(CODES[data.val_index]))
    assert data.shape.vocabulary == CODES.max() + 1
    assert next(data.batches(8, 1))[0].dtype == torch.int64


def test_other_models_of_the_same_data_see_scaled_numbers() -> None:
    data = prepare_data(Dataset((CODES, LABELS)), config(model="mlp"), CPU)
    assert data.x_train.dtype == torch.float32
    assert data.shape.vocabulary is None


def test_batches_of_whole_numbers() -> None:
    batches = [(CODES[i : i + 20], LABELS[i : i + 20]) for i in (0, 20, 40)]
    data = prepare_data(Dataset(batches, validation=batches[:1], classes=3, vocabulary=9), config(), CPU)
    assert torch.equal(torch.cat([x for x, _ in data.batches(1, 1)]), torch.from_numpy(CODES))
    assert data.shape.vocabulary == 9


def test_a_table_of_whole_numbers_and_categories() -> None:
    features = (
        Feature(name="year", column="year"),
        Feature(name="colour", column="colour", kind="category", categories=("red", "blue")),
    )
    x = np.stack([np.arange(60) + 1900, np.arange(60) % 3], 1).astype(np.float32)
    data = prepare_data(Dataset((x, LABELS), features=features, classes=3), config(numeric_scaling="robust"), CPU)
    assert data.x_train.dtype == torch.int64
    assert data.x_val[:, 0].tolist() == x[data.val_index, 0].tolist()
    assert (data.shape.categories, data.shape.vocabulary) == ((3,), 1960)
    with pytest.raises(DataError, match=r"feature 'year' of sample 0 is 1900.5; its model takes whole numbers"):
        prepare_data(Dataset((x + np.float32([0.5, 0]), LABELS), features=features, classes=3), config(), CPU, "mine")


@pytest.mark.parametrize(
    ("dataset", "model", "says"),
    [
        (Dataset((CODES + 0.5, LABELS)), "codes", "mine, train: sample 0 holds [0-9.]+; its model takes whole numbers"),
        (Dataset((CODES, LABELS), vocabulary=5), "codes", "holds [5-8]; codes are from 0 to 4, as in training"),
        (Dataset((CODES, LABELS), vocabulary=9), "mlp", "takes numbers, but the samples of mine are codes"),
    ],
)
def test_what_is_no_whole_number_or_no_code(dataset: Dataset, model: str, says: str) -> None:
    with pytest.raises((DataError, ConfigError), match=says):
        prepare_data(dataset, config(model=model), CPU, "mine")


def test_test_codes_beyond_training() -> None:
    line = r"mine, test: sample 0 holds [0-9]+; codes are from 0 to 8"
    with pytest.raises(DataError, match=line):  # before anything is trained
        prepare_data(Dataset((CODES, LABELS), (CODES[:6] + 9, LABELS[:6])), config(), CPU, "mine")
    data = prepare_data(Dataset((CODES, LABELS), lambda: (CODES[:6] + 9, LABELS[:6])), config(), CPU, "mine")
    with pytest.raises(DataError, match=line):
        data.test()


def test_a_model_that_takes_codes_says_how_to_register_it() -> None:
    registry.model("unmarked")(lambda *_: nn.EmbeddingBag(9, 3))
    with pytest.raises(ConfigError, match="register it with integers=True"):
        build_model(config(model="unmarked"), (5,), 3)


def test_scaling_has_no_effect_and_the_trait_is_declared_where_it_is_on() -> None:
    assert "input_scaling" not in config(input_scaling="unit").effective()
    assert why_unstackable(config()) is None
    assert why_unstackable(config(model="text_classifier")) is not None
    registry.model("numbers")(lambda *_: nn.Linear(5, 3))
    declared = Declarations().select(["codes", "numbers"], [])
    stored = {each["name"]: each for each in declared.model_dump(mode="json")["models"]}
    assert stored["codes"]["integers"] is True
    assert "integers" not in stored["numbers"]
    assert Declarations.model_validate(declared.model_dump(mode="json")) == declared


def test_the_preprocessing_of_whole_numbers() -> None:
    inputs = preprocessing_of(prepare_data(Dataset((CODES, LABELS)), config(), CPU))
    assert (inputs.values, inputs.vocabulary, inputs.input_shape.vocabulary) == ("integer", 9, 9)
    np.testing.assert_array_equal(inputs.apply(inputs.samples(CODES)), CODES)
    for wrong, says in ((CODES + 0.5, "not whole"), (CODES + 9, "knows those from 0 to 8")):
        with pytest.raises(ValueError, match=says):
            inputs.samples(wrong)


# ---- samples of different lengths


class Walks(TorchDataset[Any]):
    """Sequences of whole numbers, of which one tells the class."""

    def __init__(self, samples: int, seed: int = 0, *, fails: int = -1, noise: bool = False) -> None:
        self.samples, self.seed, self.fails, self.noise = samples, seed, fails, noise

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == self.fails:
            raise OSError("no such block")
        rng = np.random.default_rng([self.seed, index])
        x = rng.integers(4, 20, rng.integers(2, 12))
        x[0] = 1 + index % 3
        drawn = int(torch.randint(4, 20, ()) + np.random.randint(2)) if self.noise else 4
        return torch.from_numpy(np.append(x, drawn)), index % 3


def pad(items: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    xs, ys = zip(*items, strict=True)
    return pad_sequence(xs, batch_first=True), torch.tensor(ys)


def walks(train: Any = None, **changes: Any) -> Dataset:
    dataset = Dataset(train=Walks(60) if train is None else train, **{"collate": pad, **changes})
    return check_dataset(read_parts(dataset, "walks"), "walks")


def test_each_batch_is_as_long_as_its_longest_sample() -> None:
    data = prepare_data(walks(test=Walks(9, 1)), config(), CPU, "walks")
    source = Walks(60)
    chosen = [index for index in range(60) if index not in data.val_index]
    order = np.array(chosen)[data._order(48, 3)]
    batches = list(data.batches(8, 3))
    assert len(batches) == data.steps(8) == 6
    for (x, y), index in zip(batches, np.split(order, 6), strict=True):
        expected, labels = pad([source[int(i)] for i in index])
        assert torch.equal(x, expected)
        assert torch.equal(y, labels)
    assert len({x.shape[1] for x, _ in batches}) > 1
    assert torch.equal(data.x_val, pad([source[int(i)] for i in data.val_index])[0])
    assert torch.equal(data.test()[0], pad([Walks(9, 1)[i] for i in range(9)])[0])
    assert (data.classes, data.shape.vocabulary) == (3, 20)


def test_samples_of_a_list_are_divided_into_folds_and_weighed() -> None:
    items = [Walks(60)[i] for i in range(60)]
    folds = [
        prepare_data(walks(items), config(class_weight="balanced"), CPU, division=Division("fold", 3, i))
        for i in range(3)
    ]
    assert sorted(int(i) for data in folds for i in data.val_index) == list(range(60))
    assert len({data.digest for data in folds}) == 3
    assert [len(batch) for batch in folds[0].batches(8, 1)] == [3] * 5


def test_real_sequences_keep_their_layout() -> None:
    rng = np.random.default_rng(1)
    items = [(torch.from_numpy(rng.normal(size=(3 + i % 4, 2)).astype(np.float32)), i % 2) for i in range(30)]
    data = prepare_data(walks(items), config(model="mlp"), CPU)
    x, _ = next(data.batches(8, 1))
    assert (x.dtype, x.ndim, x.shape[2]) == (torch.float32, 3, 2)


class Lengths(nn.Module):
    """Model of sequences of any length."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.GRU(2, width, batch_first=True), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.enter(x)[0].mean(1))


@pytest.mark.parametrize("batch_size", [2, 8])
def test_models_of_sequences_of_any_length_stack(batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "measure_gain", lambda *_: Timing(2.0, 1.0))
    registry.model("lengths", uses=["width"])(lambda config, shape, classes: Lengths(config.width, classes))
    rng = np.random.default_rng(1)
    items = [(torch.from_numpy(rng.normal(size=(3 + i % 9, 2)).astype(np.float32)), i % 2) for i in range(60)]
    configs = [
        config(model="lengths", width=4 + i % 2, learning_rate=0.01 * (i + 1), batch_size=batch_size) for i in range(4)
    ]
    data = prepare_data(walks(items), configs[0], CPU)
    assert len({x.shape for x, _ in data.batches(batch_size, 1)}) > 1
    seen: dict[int, int] = {}

    class Sees(Callback):
        def on_epoch(self, member: Member, metrics: Metrics) -> None:
            seen[member.number] = member.stack

    together = train(configs, data, TrainSettings(callbacks=[Sees()]))
    assert set(seen.values()) == {2}
    for each, found in zip(configs, together, strict=True):
        (expected,) = train([each], data)
        for row, wanted in zip(found.history, expected.history, strict=True):
            assert [row[name] for name in ("train_loss", "val_loss")] == pytest.approx(
                [wanted[name] for name in ("train_loss", "val_loss")], rel=1e-4
            )


class Reader(nn.Module):
    """Model of codes from 2**24 on, of which float32 has every second: embeddings with padding, attention, a GRU."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4, padding_idx=0)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.gru, self.output = nn.GRU(4, 5, batch_first=True), nn.Linear(5, classes)

    def forward(self, x: Tensor) -> Tensor:
        vectors = self.embedding(x % 2**24)
        mixed = vectors + self.attention(vectors, vectors, vectors)[0]
        outputs: Tensor = self.output(self.gru(mixed)[0][:, -1])
        return outputs


@pytest.mark.parametrize("orders", [(None, None, None), (1, 2, 3)])
def test_models_of_whole_numbers_stack(
    orders: tuple[int | None, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(check, "measure_gain", lambda *_: Timing(2.0, 1.0))
    registry.model("reader", integers=True)(lambda config, shape, classes: Reader(classes))
    common = {"model": "reader", "optimizer": "adam", "validation": 10}  # the last batch has 2 samples of 8
    configs = [
        config(**common, learning_rate=0.01 * (number + 1), order_seed=order) for number, order in enumerate(orders)
    ]
    dataset = Dataset((CODES + 2**24, LABELS))
    data = [prepare_data(dataset, configs[0], CPU)] * 3
    if orders[0] is not None:
        data = [prepare_data(dataset, each, CPU) for each in configs]
    assert check.why_alone(configs[0], data[0]) is None
    seen: set[int] = set()

    class Sees(Callback):
        def on_epoch(self, member: Member, metrics: Metrics) -> None:
            seen.add(member.stack)

    together = train(configs, data, TrainSettings(callbacks=[Sees()]))
    assert seen == {3}
    names = "train_loss", "val_loss"
    for each, own, found in zip(configs, data, together, strict=True):
        (expected,) = train([each], own)
        for row, wanted in zip(found.history, expected.history, strict=True):
            assert [row[name] for name in names] == pytest.approx([wanted[name] for name in names], rel=1e-5)
    specs = [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(3)]
    asked = iter(range(100))
    train(configs, data, TrainSettings(should_stop=lambda: next(asked) >= 9), specs)
    rest = train(configs, data, None, [replace(spec, resume=True) for spec in specs])
    assert [[row["val_loss"] for row in each.history] for each in rest] == [
        [row["val_loss"] for row in each.history] for each in together
    ]


def test_a_stack_of_dense_layers_takes_samples_of_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """One number of a batch would do for all features, as it is copied."""
    items = [(torch.ones(1 + i % 4, 1), i % 2) for i in range(30)]
    configs = [config(model="mlp", widths="4", batch_size=2, learning_rate=rate) for rate in (0.1, 0.2)]
    with pytest.raises(
        ConfigError, match=r"a batch has samples of shape \(\d, 1\), and the validation samples have \(4, 1\)"
    ):
        train(configs, prepare_data(walks(items), configs[0], CPU))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"collate": lambda items: items[0][0]}, "collate returns Tensor; it must return"),
        ({"collate": lambda items: ([1], [2])}, r"collate returns \(list, list\); it must return"),
        ({"collate": lambda items: 1 / 0}, "collate: ZeroDivisionError: division by zero .*test_sequences.py"),
        ({"train": (CODES, LABELS)}, "walks, train: collate makes batches of samples, but train is one tuple"),
        ({"train": Walks(60, fails=7)}, "walks, train, sample 7: OSError: no such block"),
        ({"workers": 2}, "with `workers`, give hpo.Dataset `classes` and `validation`"),
        ({"workers": -1}, "workers = -1; give the number of processes"),
        ({"collate": None, "train": (CODES, LABELS), "workers": 1}, "workers = 1: they read samples by number"),
    ],
)
def test_wrong_batches_are_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        prepare_data(walks(**changes), config(), CPU, "walks")


# ---- texts


def text_model(pooling: str, **changes: Any) -> TextClassifier:
    chosen = {"pooling": pooling, "token_embedding_size": 6, "gru_size": 5, "dropout": 0.0, **changes}
    torch.manual_seed(0)
    return TextClassifier(config(model="text_classifier", **chosen), 12, 3).eval()


@pytest.mark.parametrize("pooling", ["mean", "attention", "gru"])
def test_pooling_is_its_formula_on_each_text_alone(pooling: str) -> None:
    model = text_model(pooling)
    texts = [[3, 4, 5, 6], [7], [2, 2, 9]]
    x = torch.tensor([text + [0] * (8 - len(text)) for text in texts])
    for text, outputs in zip(texts, model(x), strict=True):
        vectors = model.embedding.weight[text]
        if pooling == "mean":
            pooled = vectors.mean(0)
        elif pooling == "attention":
            pooled = torch.softmax(model.score(vectors).flatten(), 0) @ vectors
        else:
            pooled = model.gru(vectors[None])[1].flatten()
        torch.testing.assert_close(outputs, model.output(pooled))


@pytest.mark.parametrize("pooling", ["mean", "attention", "gru"])
def test_an_empty_text_and_more_padding_change_nothing(pooling: str) -> None:
    model = text_model(pooling)
    x = torch.tensor([[3, 4, 0], [0, 0, 0]])
    outputs = model(x)
    torch.testing.assert_close(outputs[1], model.output.bias)
    torch.testing.assert_close(model(nn.functional.pad(x, (0, 9))), outputs)
    outputs.sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


def test_a_text_classifier_learns_and_gru_size_matters_to_a_gru_alone() -> None:
    x = np.where(np.arange(6) == 2, LABELS[:, None] + 1, 5 + CODES[:, :1] % 3)
    data = prepare_data(Dataset((x, LABELS)), config(model="text_classifier"), CPU)
    for pooling in ("mean", "attention", "gru"):
        chosen = config(model="text_classifier", pooling=pooling, learning_rate=0.05, epochs=8)
        (result,) = train([chosen], data)
        assert result.history[-1]["val_accuracy"] == 1
        assert ("gru_size" in chosen.effective()) == (pooling == "gru")


def test_a_text_classifier_takes_sequences_alone() -> None:
    data = prepare_data(Dataset((CODES[:, None, :], LABELS)), config(model="text_classifier"), CPU)
    with pytest.raises(ConfigError, match="samples are of shape"):
        build_model(config(model="text_classifier"), data.shape, 3)


@pytest.mark.parametrize("model", ["codes", "text_classifier"])
@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (Dataset((CODES - 1, LABELS)), "codes of walks are below 0; number them from 0"),
        (Dataset([(CODES, LABELS)], validation=[(CODES, LABELS)], classes=3), "batches of walks .* give `vocabulary`"),
    ],
)
def test_a_vocabulary_that_is_not_known_is_an_error_where_it_is_read(model: str, dataset: Dataset, says: str) -> None:
    chosen = config(model=model)
    shape = prepare_data(dataset, chosen, CPU, "walks").shape
    for each in (shape, pickle.loads(pickle.dumps(shape))):
        with pytest.raises(DataError, match=f"shape.vocabulary is not known: .*{says}"):
            build_model(chosen, each, 3)


def test_test_samples_in_memory_are_looked_at_before_training() -> None:
    named = np.array(["a", "b", "c"])[LABELS]
    dataset = code_labels(Dataset((CODES, named), (CODES[:6] + 9, named[:6])), "mine")
    with pytest.raises(DataError, match="mine, test: sample 0 holds"):
        prepare_data(dataset, config(), CPU, "mine")


def test_parameters_of_images_are_none_of_models_of_whole_numbers() -> None:
    assert "augmentation" in {row["group"] for row in parameter_rows("mlp")}
    assert "augmentation" not in {row["group"] for row in parameter_rows("text_classifier")}


# ---- processes that read


def streamed(workers: int, **changes: Any) -> Dataset:
    train = changes.pop("train", Walks(60, noise=True))
    return walks(train, validation=Walks(12, 2), classes=3, vocabulary=30, workers=workers, **changes)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_of_processes_tell_no_vocabulary(workers: int) -> None:
    data = prepare_data(streamed(workers), config(), CPU, "walks")
    with pytest.raises(DataError, match=r"the batches of walks do not tell it; give `vocabulary` in hpo\.Dataset"):
        assert replace(data, vocabulary=None).shape.vocabulary


def read(data: Data, epoch: int) -> list[tuple[Tensor, ...]]:
    return list(data.batches(8, epoch))


@pytest.mark.integration
def test_random_samples_do_not_depend_on_the_number_of_processes() -> None:
    one, two = (prepare_data(streamed(workers), config(), CPU) for workers in (1, 2))
    before = torch.get_rng_state()
    first, second, again = read(one, 1), read(one, 2), read(two, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))
    assert any(x.shape != y.shape or not torch.equal(x, y) for (x, _), (y, _) in zip(first, second, strict=True))


@pytest.mark.integration
def test_an_error_in_a_process_is_one_line() -> None:
    data = prepare_data(streamed(1, train=Walks(60, fails=9)), config(), CPU)
    with pytest.raises(DataError) as raised:
        read(data, 1)
    assert str(raised.value).startswith("walks, train, sample 9: OSError: no such block (")
    assert "\n" not in str(raised.value)


class Leaving(Walks):
    """Samples whose reader is killed."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


@pytest.mark.integration
def test_a_process_that_is_killed_is_one_line() -> None:
    data = prepare_data(streamed(1, train=Leaving(60)), config(), CPU)
    with pytest.raises(DataError, match="walks, train: a process that reads samples has ended"):
        read(data, 1)


@pytest.mark.integration
def test_a_trial_that_resumes_in_the_midst_of_an_epoch_ends_with_the_same_bits(tmp_path: Path) -> None:
    chosen, spec = config(dropout=0.3), CheckpointSpec(tmp_path / "trial.pt")

    def run(workers: int, steps: int = 1000, *, resume: bool = False) -> TrainResult:
        asked = iter(range(1001))
        settings = TrainSettings(should_stop=lambda: next(asked) >= steps)
        data = prepare_data(streamed(workers), chosen, CPU)
        return train([chosen], data, settings, [replace(spec, resume=resume)])[0]

    whole = run(1)
    assert run(2, 9).status == "interrupted"
    rest = run(2, resume=True)
    assert (len(rest.history), rest.status) == (2, "completed")
    assert [{**row, "seconds": 0} for row in rest.history] == [{**row, "seconds": 0} for row in whole.history]
    assert rest.weights is not None
    assert whole.weights is not None
    assert all(torch.equal(rest.weights[name], whole.weights[name]) for name in whole.weights)
