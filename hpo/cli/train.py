"""Command that trains one configuration without a study: train."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpo.cli.options import app, dataset_options, device_option, import_option, set_option
from hpo.cli.output import say
from hpo.config.builtin_metrics import BUILTIN_METRICS
from hpo.errors import RunError

if TYPE_CHECKING:
    from hpo.training.member import TrainResult

__all__: list[str] = []


@app.command()
@set_option
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="A configuration file, as hpo export writes it."
)
@dataset_options
@click.option(
    "--objective",
    help="The metric whose best epoch is kept; by default that of the task: val_accuracy, val_f1_macro or val_r2.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for configuration, metrics, events and weights; by default a new one in HPO_HOME.",
)
@click.option("--threads", type=click.IntRange(1, 4096), help="Threads of torch; by default all cores.")
@click.option("--test", is_flag=True, help="Read the test set, once, at the end.")
@device_option
@import_option
def train(
    sets: Sequence[str],
    config_file: Path | None,
    dataset: object,
    objective: str | None,
    out: Path | None,
    threads: int | None,
    test: bool,
    device: str,
    imports: Sequence[str],
) -> int:
    """Train one configuration, without a study.

    Example: hpo train --set optimizer=momentum --set learning_rate=0.01 --set epochs=2 --out run1
    """
    from hpo.config import registry
    from hpo.study.input.config_file import read_config
    from hpo.study.input.study_file import parse_override
    from hpo.utils.home import cores, home, make_folder
    from hpo.utils.signals import StopRequest

    registry.import_modules(imports)
    overrides = dict(parse_override(text) for text in sets)
    request = read_config(config_file, overrides, dataset, objective)
    for note in request.notes:
        say(f"note: {note}")
    from hpo.training import standalone  # torch, once the request is known to be right
    from hpo.training.settings import TrainSettings

    with StopRequest() as stop:
        settings = TrainSettings(
            monitor=request.objective.metric,
            direction=request.objective.direction,
            metrics=[registry.metrics.get(request.objective.metric)],
            should_stop=stop,
        )
        result = standalone.train_config(
            request.config,
            request.dataset,
            out or make_folder(home() / "train") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"),
            settings=settings,
            device=device,
            threads=threads or cores(),
            test=test,
        )
    monitor = settings.resolve(request.config, 1).monitor  # with samples to validate on, by which it is the best
    _print_result(result.outcome, request.config.epochs, result.out, monitor or request.objective.metric)
    for name, value in (result.test or {}).items():
        click.echo(f"test_{name} {value:.4f}")
    click.echo(f"written to {result.out}")
    return stop.exit_code


def _print_result(result: TrainResult, epochs: int, out: Path, monitor: str) -> None:
    """Print the metrics of the epoch that was kept; first the one by which it is the best.

    Raises:
        RunError: the training diverged.
    """
    count = len(result.history)
    if result.status == "diverged":
        raise RunError(f"diverged: {result.cause}; lower learning_rate (metrics in {out})")
    if result.status == "interrupted":
        say(f"interrupted after {count} of {epochs} epochs")
    if result.status == "pruned":
        say("the loop has pruned itself")
    if (best := result.best) is not None:
        which, split = ("best", "val") if "val_loss" in best else ("last", "train")
        fixed = ("accuracy", "r2", "loss", "reconstruction_error")
        shown = [name for each in fixed if (name := f"{split}_{each}") in best]
        shown += [name for name in best if name in BUILTIN_METRICS and name not in shown and split == "val"]
        shown = shown or [name for name in best if name not in ("epoch", "seconds")]  # of a loop of the user's own
        shown.sort(key=lambda name: name != monitor)
        by = f" by {monitor}" if which == "best" and monitor in best else ""
        values = ", ".join(f"{name} {best[name]:.4f}" for name in shown)
        click.echo(f"{which} epoch {result.best_epoch}{by}: {values}")
