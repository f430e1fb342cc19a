"""KerasTuner on the torch backend, as its guide: `fit`, a HyperModel that tunes the batch size too, Bayesian search."""

from __future__ import annotations

from typing import Any

import keras
import keras_tuner

from benchmarks.rivals.keras_record import Record
from benchmarks.rivals.session import session

data = session.data
CLASSES = int(data["y_train"].max()) + 1


class HyperModel(keras_tuner.HyperModel):
    def build(self, hp: Any) -> Any:
        space = session.space
        config = {name: hp.Choice(name, choices) for name, choices in space.choices.items()}
        config |= {name: hp.Int(name, *bounds) for name, bounds in space.integers.items()}
        config |= {name: hp.Float(name, *bounds, sampling="log") for name, bounds in space.rates.items()}
        layers = cnn(config) if space.model == "cnn" else mlp(config)
        model = keras.Sequential([*layers, keras.layers.Dense(CLASSES, activation="softmax")])
        optimizer = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[config["optimizer"]]
        model.compile(optimizer(config["learning_rate"]), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def fit(self, hp: Any, model: Any, *args: Any, **options: Any) -> Any:
        return model.fit(*args, batch_size=hp.get("batch_size"), **options)


def mlp(config: dict[str, Any]) -> list[Any]:
    dense = [keras.layers.Dense(config["width"], activation=config["activation"]) for _ in range(config["depth"])]
    return [keras.layers.Flatten(), *dense]


def cnn(config: dict[str, Any]) -> list[Any]:
    layers: list[Any] = []
    for block in range(config["conv_layers"]):
        channels = config["channels"] << block
        layers += [keras.layers.Conv2D(channels, 3, padding="same", activation=config["activation"])]
        layers += [keras.layers.MaxPooling2D(2)]
    return [*layers, keras.layers.Flatten(), keras.layers.Dense(config["dense_width"], activation=config["activation"])]


def scaled(part: str) -> Any:
    x = data[f"x_{part}"].astype("float32") / (255 if data["x_train"].ndim > 2 else 1)
    x = (x - data["mean"]) / data["deviation"]
    return x[..., None] if x.ndim > 2 else x


if __name__ == "__main__":
    keras.utils.set_random_seed(session.seed)
    tuner = keras_tuner.BayesianOptimization(
        HyperModel(),
        objective="val_accuracy",
        max_trials=session.trials,
        seed=session.seed,
        directory=session.folder,
        project_name="rivals",
    )
    validation = (scaled("val"), data["y_val"])
    tuner.search(
        scaled("train"),
        data["y_train"],
        epochs=session.epochs,
        validation_data=validation,
        callbacks=[Record()],
        verbose=0,
    )
