"""Options of workers, declared once; commands, Python calls and the workers' own command lines follow from them."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from hpo.errors import RequestError, describe_unknown

__all__ = ["Flag", "WorkerOptions", "accepts_worker_options", "explain", "flag_of"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Flag:
    """An option's face on the command line.

    Attributes:
        launch: its name in `hpo launch` and `hpo evaluate`; None where these know it otherwise.
        worker: its name in `hpo worker`; None where a worker need not know it.
        metavar: what stands for its value in a help text; None lets the type say it.
        none: the word that stands for None.
        envvar: an environment variable that it is read from where it is not given.
    """

    launch: str | None
    worker: str | None = None
    metavar: str | None = None
    none: str | None = None
    envvar: str | None = None


def _check_device(name: str) -> str:
    """Refuse a name that no device has; the worker finds out whether the device is there."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError("is none of auto, cpu, cuda, cuda:N")
    return name


def _resolve(path: Path | None) -> Path | None:
    """Return the whole path, for a worker may start in another folder."""
    return None if path is None else path.resolve()


LONGEST = 1e9  # seconds, 31 years: a time so far ahead can still be written as a date
Seconds = Annotated[float, Field(allow_inf_nan=False)]


class WorkerOptions(BaseModel):
    """Options of the workers of a launch or an evaluation, all of which have the same ones.

    A field's annotation holds everything there is to know of an option: its type, its bounds, its help text and its
    flag. A new option is one field here, and whatever reads it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: Annotated[
        int | None,
        Flag("--workers"),
        Field(
            ge=0,
            le=10_000,
            description="Number of workers; by default one per GPU of this machine, or one per core if it has none, and"
            " 1 on Ray or Slurm. 0 only creates the study.",
        ),
    ] = None
    cpus: Annotated[
        int | None,
        Flag("--cpus", "--threads"),
        Field(
            ge=1,
            le=4096,
            description="Cores, and threads of torch, of a worker; by default its share of this machine's cores, 1 if"
            " all models are small, 1 on Ray, and whatever Slurm gives.",
        ),
    ] = None
    gpus: Annotated[
        float | None,
        Flag("--gpus"),
        Field(
            ge=0,
            le=1024,
            allow_inf_nan=False,
            description="GPUs of a worker on Ray or Slurm; on Ray a fraction shares a GPU.",
        ),
    ] = None
    tensorboard: Annotated[
        Path | None,
        Flag("--tensorboard", "--tensorboard", metavar="DIR"),
        AfterValidator(_resolve),
        Field(
            description="Folder for every epoch's metrics as TensorBoard events, in STUDY/trial_N; all workers must be"
            " able to reach it."
        ),
    ] = None
    trackers: Annotated[
        tuple[Literal["mlflow", "wandb"], ...],
        Flag("--tracker", "--tracker"),
        Field(
            description="Log every trial to MLflow or Weights & Biases, as configured by their own environment"
            " variables."
        ),
    ] = ()
    cohort: Annotated[
        int | None,
        Flag("--cohort", "--cohort", metavar="auto|K", none="auto"),
        Field(
            ge=1,
            le=10_000,
            description="Number of trials that a worker trains at the same time, at most; 1 trains them one by one. By"
            " default as many as pay, by a short measurement; an adaptive sampler is asked for its start-up trials at"
            " once, and later for as many as reach the study's result soonest.",
        ),
    ] = None
    checkpoint_every: Annotated[
        Seconds,
        Flag("--checkpoint-every", "--checkpoint-every"),
        Field(ge=0, le=LONGEST, description="Seconds between checkpoints of a trial; 0 writes one after each epoch."),
    ] = 30.0
    # Long enough for a busy machine, and what a trial waits after its worker has died.
    lease: Annotated[
        Seconds,
        Flag("--lease", "--lease"),
        Field(
            ge=1,
            le=LONGEST,
            description="Seconds after which a trial whose worker gives no sign of life goes to another one.",
        ),
    ] = 60.0
    device: Annotated[
        str,
        Flag("--device", "--device"),
        AfterValidator(_check_device),
        Field(description="Device to train on: auto, cpu, cuda or cuda:N."),
    ] = "auto"
    imports: Annotated[
        tuple[str, ...],
        Flag("--import", "--import", metavar="MODULE", envvar="HPO_IMPORT"),
        Field(description="Module that registers your models, data sets or metrics, or the path of its file."),
    ] = ()
    function: Annotated[
        str | None,
        Flag(None, "--objective", metavar="FILE.py:FUNCTION"),
        Field(
            description="Objective function of the study: a function of a file, or MODULE:FUNCTION of a module that can"
            " be imported here."
        ),
    ] = None
    debug: Annotated[bool, Field(description="Show tracebacks in the workers' logs.")] = False

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Check values and return them as options.

        Raises:
            RequestError: a name is unknown, or a value is out of bounds or of another type.
        """
        for name in values:
            if name not in cls.model_fields:
                raise RequestError(describe_unknown("option", name, cls.model_fields))
        try:
            return cls(**values)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            raise RequestError(f"{name} = {values[name]!r}: {explain(error)}") from error

    @classmethod
    def split(cls, keywords: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Return the options among the keywords of a call, and the other keywords.

        Raises:
            RequestError: an option is out of bounds or of another type.
        """
        options = {name: value for name, value in keywords.items() if name in cls.model_fields}
        return cls.parse(options), {name: value for name, value in keywords.items() if name not in options}

    def arguments(self, study: str) -> list[str]:
        """Return the arguments of `hpo` that start a worker with these options.

        The storage's URL is not among them: it may hold a password, and comes by the environment.
        """
        arguments = ["worker", study]
        for name, field in type(self).model_fields.items():
            flag, value = flag_of(field), getattr(self, name)
            if flag is None or flag.worker is None:
                continue
            value = flag.none if value is None else value
            values = value if isinstance(value, tuple) else () if value is None else (value,)
            arguments += [part for each in values for part in (flag.worker, str(each))]
        return [*arguments, "--debug"] if self.debug else arguments


def flag_of(field: FieldInfo) -> Flag | None:
    """Return the flag of an option's field; None where it has none."""
    return next((each for each in field.metadata if isinstance(each, Flag)), None)


def explain(error: ValidationError) -> str:
    """Return the first thing that is wrong with a value, as what would follow it in a sentence."""
    message = error.errors()[0]["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return message.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")


def accepts_worker_options(function: Callable[P, R]) -> Callable[P, R]:
    """Show the options of workers in a function's signature and docstring; it takes them in its `**keywords`.

    An option that the function declares itself stays as it is there.
    """
    signature = inspect.signature(function)
    *own, keywords = signature.parameters.values()
    fields = {
        name: field
        for name, field in WorkerOptions.model_fields.items()
        if name not in signature.parameters and ((flag := flag_of(field)) is None or flag.launch is not None)
    }
    options = [
        inspect.Parameter(name, keywords.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
        for name, field in fields.items()
    ]
    help_lines = [
        textwrap.fill(f"{name}: {field.description}", 112, initial_indent=" " * 4, subsequent_indent=" " * 8)
        for name, field in fields.items()
    ]
    function.__dict__["__signature__"] = signature.replace(parameters=[*own, *options, keywords])
    function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Options of workers:", *help_lines])
    return function
