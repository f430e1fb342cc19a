"""Registry of models, training loops, data sets and metrics by name, ours and the user's.

All are registered in the same way. The user's come from a module given with `--import`, or from an installed package
with an entry point of the group `hpo`: the module is imported, and the decorators below do the rest. An entry holds a
function, or a dotted name that is resolved on first use, so that ours can be listed without importing torch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from hpo.config.aliases import find_value_alias
from hpo.config.builtin_metrics import BUILTIN_METRICS
from hpo.config.choices import TASKS, Direction, Task
from hpo.config.declared_domain import declared_domains
from hpo.config.model_library import MODULE, correct_name, find_library, spell_names
from hpo.config.sent_entries import SUFFIX, read_entries
from hpo.errors import RegistryError, UserExitError, describe_unknown
from hpo.utils.exits import translate_exits
from hpo.utils.modules import add_folder, import_file, is_file_path
from hpo.utils.text import summarize_error

if TYPE_CHECKING:
    from hpo.config.parameter import Parameter

__all__ = [
    "BUILTIN_METRICS",
    "MAIN",
    "NO_DATA",
    "DatasetEntry",
    "Direction",
    "MetricEntry",
    "ModelEntry",
    "ModelTraits",
    "Models",
    "Registry",
    "dataset",
    "datasets",
    "import_module",
    "import_modules",
    "is_builtin",
    "metric",
    "metrics",
    "model",
    "models",
    "resolve",
    "training_loop",
]

Function = TypeVar("Function", bound=Callable[..., Any])

MAIN = "__main__"  # the module of notebooks, and of scripts that are run
NO_DATA = "none"  # the data set of studies whose loops read data of their own
MODULES_HINT = "if it is yours, name its module with --import"


def is_builtin(module: str) -> bool:
    """Return whether a module is one of this package, so that any worker has what it registers."""
    return module == "hpo" or module.startswith("hpo.")


def resolve(dotted: str) -> Any:
    """Return the object that a dotted name stands for: `package.module.object`."""
    module, _, attribute = dotted.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True)
class Entry:
    """Registered name.

    Attributes:
        name: the name.
        target: the function, or its dotted name.
        module: the module that registered it.
    """

    name: str
    target: Callable[..., Any] | str
    module: str

    @property
    def builtin(self) -> bool:
        """True if it ships with this package, so that any worker has it."""
        return is_builtin(self.module)

    def load(self) -> Callable[..., Any]:
        """Return the function itself; a dotted name is imported."""
        loaded: Callable[..., Any] = resolve(self.target) if isinstance(self.target, str) else self.target
        return loaded


@dataclass(frozen=True)
class ModelEntry(Entry):
    """Registered model: `(config, shape, classes) -> nn.Module`.

    Attributes:
        parameters: its extra parameters: as fields of a class, or in rows.
        uses: the shared parameters that it uses.
        reconstructs: whether its target is its input.
        loop: whether it is a training loop of the user's own: `(trial) -> None`, or a value.
        stack: whether that loop trains several trials at once, by `trial.stack`.
        augment: changes the samples of each training batch: `(x, config) -> x`.
        integers: whether its samples are whole numbers, such as token ids, which are not scaled.
    """

    parameters: type[BaseModel] | Mapping[str, Parameter] | None = None
    uses: frozenset[str] = frozenset()
    reconstructs: bool = False
    loop: bool = False
    stack: bool = False
    augment: Callable[[Any, Any], Any] | None = None
    integers: bool = False

    def __hash__(self) -> int:
        return hash((self.name, self.module, self.target))


class ModelTraits(Protocol):
    """Traits of a model that need no function; see `ModelEntry`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def module(self) -> str:
        """The module that registers it."""

    @property
    def builtin(self) -> bool:
        """True if it ships with this package."""

    @property
    def parameters(self) -> type[BaseModel] | Mapping[str, Parameter] | None:
        """Its extra parameters."""

    @property
    def uses(self) -> frozenset[str]:
        """The shared parameters that it uses."""

    @property
    def reconstructs(self) -> bool:
        """True if its target is its input."""

    @property
    def loop(self) -> bool:
        """True if it is a training loop of the user's own."""

    @property
    def stack(self) -> bool:
        """True if that loop trains several trials at once."""

    @property
    def integers(self) -> bool:
        """True if its samples are whole numbers, which are not scaled."""

    def __hash__(self) -> int:
        """Return its hash, by which tables of parameters are cached."""


class Models(Protocol):
    """Models by name: those registered in this process, or those that a study declares."""

    def get(self, name: str, /) -> ModelTraits:
        """Return what is known of the model of that name."""


@dataclass(frozen=True)
class DatasetEntry(Entry):
    """Registered data set: `() -> hpo.Dataset`.

    Attributes:
        task: what is predicted.
    """

    task: Task = "classification"


@dataclass(frozen=True)
class MetricEntry(Entry):
    """Registered metric: `(outputs, targets) -> float` over the validation set.

    Attributes:
        direction: which of its values are better.
        reported: True if training loops of the user's own report its value, and there is no function.
        measured: True if the training loop measures it in any case, and there is no function.
    """

    direction: Direction = "maximize"
    reported: bool = False
    measured: bool = False


E = TypeVar("E", bound=Entry)


class Registry(Generic[E]):
    """Entries of one kind by name. Looking up an unknown name first loads the installed plugins.

    Args:
        kind: of the entries, as messages call it.
        make: returns the entry of a name that need not be registered, or None.
        hint: returns what a message says of a name that is not registered.
        correct: returns a name that need not be registered for one with a typing error, or None.
    """

    def __init__(
        self,
        kind: str,
        make: Callable[[str], E | None] = lambda _: None,
        hint: Callable[[str], str] = lambda _: MODULES_HINT,
        correct: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self.kind, self._correct = kind, correct
        self._make, self._hint = make, hint
        self._entries: dict[str, E] = {}

    def add(self, entry: E) -> None:
        """Register `entry`.

        Raises:
            RegistryError: another module registered the name already.
        """
        earlier = self._entries.get(entry.name)
        # What was tried out in a notebook may move to a file.
        if earlier is not None and earlier.module not in (entry.module, MAIN):
            raise RegistryError(
                f"{self.kind} '{entry.name}' of module {entry.module} is already registered by {earlier.module}; "
                "choose another name"
            )
        self._entries[entry.name] = entry

    def get(self, name: str, module: str | None = None) -> E:
        """Return the entry of that name; `module` is the one that registers it according to a study.

        Raises:
            RegistryError: nothing of that name is registered; the message names the closest one or the module.
        """
        if (entry := self._look_up(name)) is not None:
            return entry
        if module is not None:
            raise RegistryError(f"{self.kind} '{name}' {_explain_absence(name, module)}")
        problem = describe_unknown(self.kind, name, self._entries, self._correct(name))
        raise RegistryError(f"{problem} ({self._hint(name)})")

    def find(self, name: str) -> E | None:
        """Return the entry of that name if it is registered already."""
        return self._entries.get(name)

    def has(self, name: str) -> bool:
        """Return whether the name is registered, by us, an import or a plugin, or need not be."""
        return self._look_up(name) is not None

    def _look_up(self, name: str) -> E | None:
        if name not in self._entries:
            load_plugins()
        return self._entries.get(name) or self._make(name)

    def names(self) -> list[str]:
        """Return all registered names, in the order of their registration."""
        load_plugins()
        return list(self._entries)


def _explain_absence(name: str, module: str) -> str:
    if module != MAIN:
        return f"is not registered here; it comes from module '{module}': add --import {module}"
    file = name if name.isidentifier() else "mine"
    return (
        "was registered in a notebook or in a script that was run, where no other process finds it: move it to a "
        f"file, for example {file}.py, and name that with --import {file}"
    )


@lru_cache(1000)
def _library_entry(name: str) -> ModelEntry | None:
    """Return the entry of a model of timm or torchvision, whether the library has it or not; None for other names."""
    library = find_library(name)
    return None if library is None else ModelEntry(name, library.target, MODULE, uses=library.uses)


def _correct_model(name: str) -> str | None:
    return find_value_alias("model", name) or correct_name(name)


def _hint_at_models(name: str) -> str:
    return f"{MODULES_HINT}; a library's is {spell_names(name)}"


models: Registry[ModelEntry] = Registry("model", _library_entry, _hint_at_models, _correct_model)
datasets: Registry[DatasetEntry] = Registry("dataset")
metrics: Registry[MetricEntry] = Registry("metric")


def model(
    name: str,
    *,
    parameters: type[BaseModel] | None = None,
    uses: Iterable[str] = (),
    reconstructs: bool = False,
    augment: Callable[[Any, Any], Any] | None = None,
    integers: bool = False,
) -> Callable[[Function], Function]:
    """Register a function `(config, shape, classes) -> nn.Module` as a model.

    Args:
        name: the value of the parameter `model` that selects it.
        parameters: a pydantic model of the extra parameters that it declares, each with a default. They become
            parameters like ours: they can be set, searched and conditioned on. A field that declares a domain, such as
            `hpo.Float(1e-4, 1e-1)`, is searched without further ado; it may also be one of the shared parameters.
        uses: the shared parameters that the function reads (`activation`, `dropout`, …). Only these have an effect
            under this model; the others are not sampled. `precision` is one of them: the training loop reads it.
        reconstructs: its target is its input: outputs are as many as the numbers of a sample, and the losses are those
            of an autoencoder.
        augment: a function `(x, config) -> x` that changes the samples of every training batch, and of no other: x
            (n, *shape), scaled, in float32 on the device. What it draws from torch's global generator follows from the
            study's seed and the epoch, so that trials can be resumed and reproduced. With `reconstructs`, the target
            is the unchanged sample: a denoising autoencoder.
        integers: its samples are whole numbers, such as token ids or codes of categories: it gets them as they are, as
            int64, and `shape.vocabulary` says how many different ones there may be, or raises a `DataError` where
            that is not known. `input_scaling` has no effect.

    `config` is a `TrialConfig` (the extra parameters are its attributes too), `shape` the shape of one sample without
    the batch (`(1, 28, 28)`), `classes` the number of outputs.
    """

    _check_name(name, "model")

    def register(function: Function) -> Function:
        entry = ModelEntry(
            name,
            function,
            function.__module__,
            parameters,
            _all_uses(uses, parameters),
            reconstructs,
            augment=augment,
            integers=integers,
        )
        models.add(entry)
        return function

    return register


def training_loop(
    name: str,
    *,
    parameters: type[BaseModel] | None = None,
    uses: Iterable[str] = (),
    reports: Mapping[str, Direction] = MappingProxyType({}),
    stack: bool = False,
    integers: bool = False,
) -> Callable[[Function], Function]:
    """Register a training loop of your own: a function `(trial: hpo.Trial)` that trains a trial and reports.

    It is selected as a model is, by `model = NAME` in a space, and has all that models have: storage, slots, leases,
    budget, pruning, checkpoints, reports; and cohorts, if it asks for them. See `hpo.Trial` for its argument. The
    trial's value is that of its best epoch, or what the function returns: the first objective, all in their order, or
    several by name.

    Args:
        name: the value of the parameter `model` that selects it.
        parameters: a pydantic model of the extra parameters that it declares, each with a default or a domain; see
            `hpo.model`.
        uses: the shared parameters that the loop reads (`epochs`, `learning_rate`, `batch_size`, …). Only these have an
            effect under it; the others are neither sampled nor stored.
        reports: the metrics that it reports beside the built-in ones and that can be objectives, each with the
            direction that is better.
        stack: whether one call may train several trials at once; such a loop trains what `trial.stack` returns. They
            agree in the data, its split and order, and in `batch_size`.
        integers: the samples of `trial.data` are whole numbers, as they are; see `hpo.model`.
    """

    _check_name(name, "training_loop")

    def register(function: Function) -> Function:
        used = _all_uses(uses, parameters)
        entry = ModelEntry(
            name, function, function.__module__, parameters, used, loop=True, stack=stack, integers=integers
        )
        models.add(entry)
        for metric, direction in reports.items():
            if metric in BUILTIN_METRICS and BUILTIN_METRICS[metric].direction == direction:
                continue  # one that we measure of models, and the loop of its own
            metrics.add(MetricEntry(metric, function, function.__module__, direction, reported=True))
        return function

    return register


def _check_name(name: object, decorator: str) -> None:
    """Refuse a decorator without a name, which then has the function itself."""
    if not isinstance(name, str):
        raise RegistryError(f'@hpo.{decorator}: needs a name: @hpo.{decorator}("mine")')


def _all_uses(uses: Iterable[str], parameters: type[BaseModel] | None) -> frozenset[str]:
    """Return the shared parameters that are used: those that are named, and those whose domain is declared."""
    return frozenset(uses).union(declared_domains(parameters))


def dataset(name: str, *, task: Task = "classification") -> Callable[[Function], Function]:
    """Register a function without arguments that returns an `hpo.Dataset` as a data set.

    Args:
        name: the name by which study files know it.
        task: what is predicted: `classification`, `multilabel` (several labels per sample) or `regression`; a launch
            chooses losses and metrics by it, and does not read the data.

    Raises:
        RegistryError: the task is unknown.
    """
    _check_name(name, "dataset")
    if task not in TASKS:
        raise RegistryError(f"data set '{name}': {describe_unknown('task', str(task), TASKS)}")

    def register(function: Function) -> Function:
        datasets.add(DatasetEntry(name, function, function.__module__, task))
        return function

    return register


def metric(name: str, *, direction: Direction = "maximize") -> Callable[[Function], Function]:
    """Register a function `(outputs, targets) -> float`, computed over the validation set after every epoch.

    `outputs` are the model's outputs (samples x classes, before any softmax), `targets` the classes (samples). Of
    several labels both are (samples x labels), outputs before any sigmoid; of regression they are the predictions and
    the targets (samples x targets), both in the targets' own units.
    """

    _check_name(name, "metric")

    def register(function: Function) -> Function:
        metrics.add(MetricEntry(name, function, function.__module__, direction))
        return function

    return register


def import_modules(names: Iterable[str]) -> None:
    """Import modules that register things: by name, also from the working directory as `python -m` does, or by file.

    Raises:
        RequestError: there is no such file.
        RegistryError: a module cannot be imported; the message gives the reason.
    """
    for name in names:
        if name.endswith(SUFFIX):
            for entry in read_entries(Path(name)):
                _registry_of(entry).add(entry)
            continue
        try:
            import_module(name)
        except RegistryError as error:
            raise RegistryError(f"--import {error}{_advise_file(name, error.__cause__)}") from error


def import_module(name: str) -> ModuleType:
    """Import a module by its name, also from the working directory, or by the path of its file.

    Raises:
        RegistryError: it cannot be imported; the message gives the reason.
        RequestError: there is no such file.
    """
    if is_file_path(name):
        return import_file(Path(name))
    add_folder(Path.cwd())
    try:
        with translate_exits():
            return importlib.import_module(name)
    except Exception as error:  # a module of the user's can raise anything
        raise RegistryError(f"{name}: {_reason(error)}") from error


def _registry_of(entry: Entry) -> Registry[Any]:
    return models if isinstance(entry, ModelEntry) else datasets if isinstance(entry, DatasetEntry) else metrics


def _advise_file(name: str, error: BaseException | None) -> str:
    """Return how to name a module that is not where modules are looked for."""
    if not isinstance(error, ModuleNotFoundError) or error.name != name.partition(".")[0]:
        return ""
    return f" in {Path.cwd()}; elsewhere, name its file: --import PATH/{name.replace('.', '/')}.py"


@cache
def load_plugins() -> None:
    """Import the modules of installed packages that have an entry point of the group `hpo`, once a process."""
    for point in importlib.metadata.entry_points(group="hpo"):
        try:
            with translate_exits():
                point.load()
        except Exception as error:
            raise RegistryError(f"plugin {point.name} ({point.value}): {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserExitError) else summarize_error(error)


SHARED = frozenset({"activation", "init", "dropout", "batch_norm", "layer_norm"})
DENSE = {"depth", "width", "width_profile", "widths", "parameter_budget"}
PERIODIC = {"periodic_frequencies", "periodic_sigma"}
TABLE = {"embedding_factor", "numeric_embedding", "numeric_embedding_size", "numeric_bins"} | PERIODIC
MLP = SHARED | DENSE | TABLE
RESNET_TABULAR = (
    frozenset({"activation", "init", "dropout", "layer_norm", "depth", "width", "hidden_factor", "residual_dropout"})
    | TABLE
)
AUTOENCODER = frozenset({"activation", "init", "dropout", "layer_norm", "latent_size"}) | DENSE
BLOCKS = {"conv_layers", "channels", "block_channels", "kernel_size", "residual", "global_pooling"}
CNN = SHARED | BLOCKS | {"dense_width"}
VIT = frozenset({"activation", "init", "dropout", "depth", "width", "hidden_factor", "patch_size", "heads"})
TEXT_CLASSIFIER = frozenset({"dropout", "pooling", "token_embedding_size", "gru_size"})

models.add(ModelEntry("mlp", "hpo.training.models.mlp", "hpo.training.models", uses=MLP))
models.add(ModelEntry("cnn", "hpo.training.convolutional.cnn", "hpo.training.convolutional", uses=CNN))
models.add(
    ModelEntry("vit", "hpo.training.vision_transformer.vit", "hpo.training.vision_transformer", uses=VIT),
)
models.add(
    ModelEntry(
        "autoencoder",
        "hpo.training.models.autoencoder",
        "hpo.training.models",
        uses=AUTOENCODER,
        reconstructs=True,
    )
)
models.add(
    ModelEntry(
        "resnet_tabular",
        "hpo.training.tabular_models.resnet_tabular",
        "hpo.training.tabular_models",
        uses=RESNET_TABULAR,
    )
)
models.add(
    ModelEntry(
        "text_classifier",
        "hpo.training.text_models.text_classifier",
        "hpo.training.text_models",
        uses=TEXT_CLASSIFIER,
        integers=True,
    )
)
datasets.add(DatasetEntry("mnist", "hpo.datasets.mnist", "hpo.datasets"))
datasets.add(DatasetEntry("fashion_mnist", "hpo.datasets.fashion_mnist", "hpo.datasets"))
datasets.add(DatasetEntry(NO_DATA, "hpo.datasets.none", "hpo.datasets"))
for _name, _metric in BUILTIN_METRICS.items():
    metrics.add(
        MetricEntry(
            _name, "hpo.training.metrics.measure", "hpo.training.metrics", _metric.direction, measured=_metric.measured
        )
    )
