"""Declarations of models and metrics of the user's own: what a study keeps of them, to be read without their code.

They stand in for the registry wherever nothing is trained. A study keeps the declarations that it was launched with:
its old trials mean what they meant then, whatever has become of the code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from hpo.config import registry
from hpo.config.declared_domain import DeclaredDomain
from hpo.config.parameter import ARTICLES, Parameter
from hpo.config.trial_config import model_parameters, shared_parameters
from hpo.config.values import Value
from hpo.errors import RegistryError

__all__ = ["NONE_DECLARED", "Declarations", "MetricDeclaration", "ModelDeclaration"]

LONGEST = 1000  # declarations of a study, and parameters of a model
KINDS = {kind.__name__: kind for kind in ARTICLES}
# The first two follow from the model, the form and the last from the table; a regular expression of a database might be
# matched for ever; and the type of a list is code: without it, any list is read.
NOT_STORED = ("group", "effect", "pattern", "form", "annotation", "implied")
STORED = [each for each in fields(Parameter) if each.name not in NOT_STORED]


class _StoredDomain(BaseModel):
    """Domain that a field declares, as far as its bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    choices: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, domain: DeclaredDomain) -> _StoredDomain:
        """Return what is stored of a domain."""
        low, high = getattr(domain.literal, "low", None), getattr(domain.literal, "high", None)
        return cls(text=domain.text, choices=domain.choices, low=low, high=high)

    def restore(self) -> DeclaredDomain:
        """Return the domain, to check values against."""
        return DeclaredDomain(self, self._contains, self.text, self.choices)

    def _contains(self, value: Any) -> bool:
        return self.low is None or self.high is None or self.low <= value <= self.high


def _write_row(row: Parameter) -> dict[str, Any]:
    """Return a parameter as JSON, without what has its default."""
    values = {each.name: getattr(row, each.name) for each in STORED if getattr(row, each.name) != each.default}
    if row.domain is not None:
        values["domain"] = _StoredDomain.of(row.domain).model_dump(exclude_defaults=True)
    return {**values, "kind": row.kind.__name__}


def _read_row(stored: object) -> object:
    """Return a stored parameter as the values of its fields, the rest of which pydantic checks.

    Raises:
        ValueError: it is no table, or has an unknown key or type.
    """
    if isinstance(stored, Parameter):
        return stored
    if not isinstance(stored, Mapping) or not set(stored) <= {each.name for each in STORED}:
        raise ValueError("it must be a table of a parameter")
    if stored.get("kind") not in list(KINDS):
        raise ValueError(f"its kind must be one of {', '.join(KINDS)}")
    domain = None if stored.get("domain") is None else _StoredDomain.model_validate(stored["domain"]).restore()
    kind = KINDS[stored["kind"]]
    return {"default": None, "help": "", **stored, "kind": kind, "domain": domain, "group": "model"}


Row = Annotated[Parameter, BeforeValidator(_read_row), PlainSerializer(_write_row)]


class _Declaration(BaseModel):
    """Name of the user's, and the module that registers it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    module: str

    def __hash__(self) -> int:
        return hash((type(self), self.name, self.module))

    @property
    def builtin(self) -> bool:
        """True if it ships with this package; no such thing is declared."""
        return registry.is_builtin(self.module)


D = TypeVar("D", bound=_Declaration)


class ModelDeclaration(_Declaration):
    """Traits of a model or a training loop, as a study stores them; see `hpo.config.registry.ModelEntry`."""

    uses: Annotated[frozenset[str], PlainSerializer(sorted)] = frozenset()
    reconstructs: bool = False
    loop: bool = False
    stack: bool = False
    integers: bool = False
    rows: Annotated[tuple[Row, ...], Field(max_length=LONGEST)] = ()

    @model_serializer(mode="wrap")
    def _write(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write what is new only where it says something, so that declarations of before stay what they are."""
        written: dict[str, Any] = write(self)
        return written if self.integers else {name: value for name, value in written.items() if name != "integers"}

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """Its extra parameters by name, and the shared ones for which it declares a domain."""
        return {row.name: row for row in self.rows}

    def check_kind(self, now: ModelDeclaration) -> None:
        """Refuse to train what is another kind of thing by now.

        Raises:
            RegistryError: trials of both could not be compared.
        """
        kinds = {
            "loop": "a training loop",
            "reconstructs": "a model that reconstructs its input",
            "integers": "a model of whole numbers (integers=True)",
        }
        for flag, meaning in kinds.items():
            then, is_now = getattr(self, flag), getattr(now, flag)
            if then != is_now:
                raise _refuse(self, "model", f"was {'' if then else 'not '}{meaning}")
        for name in self.parameters.keys() & now.parameters.keys():
            then, is_now = self.parameters[name].kind, now.parameters[name].kind
            if then != is_now:
                raise _refuse(self, "model", f"its parameter '{name}' was {then.__name__}, and is {is_now.__name__}")

    def changes(self, now: ModelDeclaration) -> Iterator[str]:
        """Yield what is different by now, apart from descriptions, in a few words each."""
        if gone := sorted(self.parameters.keys() - now.parameters.keys()):
            yield f"no longer has {', '.join(gone)}"
        if new := sorted(now.parameters.keys() - self.parameters.keys()):
            yield f"has gained {', '.join(new)}, left at the default"
        if unused := sorted(self.uses - now.uses):
            yield f"no longer uses {', '.join(unused)}"
        if used := sorted(now.uses - self.uses):
            yield f"now uses {', '.join(used)}"
        for row in now.rows:
            if row.name in self.parameters:
                yield from _changes_of_parameter(self.parameters[row.name], row)


def _changes_of_parameter(then: Parameter, now: Parameter) -> Iterator[str]:
    if (then.default, type(then.default)) != (now.default, type(now.default)):
        yield f"{now.name}: default {then.default!r} then, {now.default!r} now"
    if then.bounds != now.bounds:
        yield f"{now.name}: {then.bounds or 'no bounds'} then, {now.bounds or 'no bounds'} now"
    if then.optional != now.optional:
        yield f"{now.name}: may be None {'then' if then.optional else 'now'} only"


class MetricDeclaration(_Declaration):
    """Traits of a metric, as a study stores them; see `hpo.config.registry.MetricEntry`."""

    direction: registry.Direction
    reported: bool = False

    def check_kind(self, now: MetricDeclaration) -> None:
        """Refuse to train what is another kind of thing by now.

        Raises:
            RegistryError: trials of both could not be compared.
        """
        if self.reported != now.reported:
            was = "reported by training loops" if self.reported else "a function of outputs and targets"
            raise _refuse(self, "metric", f"was {was}")

    def changes(self, now: MetricDeclaration) -> Iterator[str]:
        """Yield what is different by now, in a few words each."""
        if self.direction != now.direction:
            yield f"was to {self.direction}, and is to {now.direction}"


def _refuse(declared: _Declaration, kind: str, difference: str) -> RegistryError:
    return RegistryError(
        f"{kind} '{declared.name}' of module {declared.module} is not what it was when the study was launched "
        f"({difference}); launch a study of its own with --name, or restore the code"
    )


class Declarations(BaseModel):
    """Declarations of a study. Names that it does not declare are looked up in the registry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    models: Annotated[tuple[ModelDeclaration, ...], Field(max_length=LONGEST)] = ()
    metrics: Annotated[tuple[MetricDeclaration, ...], Field(max_length=LONGEST)] = ()

    def get(self, name: str, /) -> registry.ModelTraits:
        """Return what is known of a model.

        Raises:
            RegistryError: it is neither declared nor registered.
        """
        return _find(self.models, name) or registry.models.get(name)

    def metric(self, name: str) -> MetricDeclaration | registry.MetricEntry:
        """Return what is known of a metric.

        Raises:
            RegistryError: it is neither declared nor registered.
        """
        return _find(self.metrics, name) or registry.metrics.get(name)

    def has(self, kind: str, name: str) -> bool:
        """Return whether a `model` or a `metric` of that name is declared."""
        return _find(self.models if kind == "model" else self.metrics, name) is not None

    def select(self, models: Iterable[str], metrics: Iterable[str]) -> Declarations:
        """Return the declarations of the user's own among some models and metrics.

        Raises:
            RegistryError: one of them is neither declared nor registered.
        """
        traits, measures = [self.get(name) for name in sorted(models)], [self.metric(name) for name in sorted(metrics)]
        return Declarations(
            models=tuple(_declare_model(each) for each in traits if not each.builtin),
            metrics=tuple(_declare_metric(each) for each in measures if not each.builtin),
        )

    def check_code(self) -> None:
        """Refuse code that has become another kind of thing; everything declared is registered.

        Raises:
            RegistryError: names it, and the difference.
        """
        for model in self.models:
            model.check_kind(_declare_model(registry.models.get(model.name)))
        for metric in self.metrics:
            now = registry.metrics.get(metric.name)
            if not (metric.reported and now.builtin):  # a loop may report what we have come to measure of models
                metric.check_kind(_declare_metric(now))

    def describe_changes(self) -> list[str]:
        """Return a line for each model and metric whose code says something else by now, where it is registered."""
        models = [(each, registry.models.find(each.name)) for each in self.models]
        metrics = [(each, registry.metrics.find(each.name)) for each in self.metrics]
        changes = [
            *((f"model '{then.name}'", [*then.changes(_declare_model(now))]) for then, now in models if now),
            *((f"metric '{then.name}'", [*then.changes(_declare_metric(now))]) for then, now in metrics if now),
        ]
        return [
            f"{label} is not what it was when the study was launched ({'; '.join(differences)}); the study keeps what "
            "it was"
            for label, differences in changes
            if differences
        ]


NONE_DECLARED = Declarations()


def _find(declarations: Iterable[D], name: str) -> D | None:
    return next((each for each in declarations if each.name == name), None)


def _declare_model(traits: registry.ModelTraits) -> ModelDeclaration:
    if isinstance(traits, ModelDeclaration):
        return traits
    rows = (*model_parameters(traits).values(), *shared_parameters(traits).values())
    return ModelDeclaration(
        name=traits.name,
        module=traits.module,
        uses=traits.uses,
        reconstructs=traits.reconstructs,
        loop=traits.loop,
        stack=traits.stack,
        integers=traits.integers,
        rows=rows,
    )


def _declare_metric(metric: MetricDeclaration | registry.MetricEntry) -> MetricDeclaration:
    if isinstance(metric, MetricDeclaration):
        return metric
    return MetricDeclaration(
        name=metric.name, module=metric.module, direction=metric.direction, reported=metric.reported
    )
