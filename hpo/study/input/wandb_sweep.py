"""Weights & Biases sweep files as study files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.config import registry
from hpo.config.aliases import DATASET_ALIASES, METRIC_ALIASES, PARAMETER_ALIASES, VALUE_ALIASES, normalize_name
from hpo.config.parameter import Parameter
from hpo.config.trial_config import all_parameters
from hpo.config.values import OFF, Value
from hpo.errors import DefinitionError, HpoError, RequestError, describe_unknown
from hpo.study.input.study_file import DEFAULT_TRIALS, parse_definition
from hpo.study.input.wandb_domains import convert_domain
from hpo.utils.documents import read_document
from hpo.utils.paths import ROOM, is_name
from hpo.utils.text import shorten
from hpo.utils.toml import toml_value

__all__ = ["ImportedStudy", "import_sweep", "write_study"]

KEYS = ("method", "metric", "parameters", "early_terminate", "name", "description", "run_cap")
METHODS = {"grid": "grid", "random": "random", "bayes": "tpe"}
# Keys that say how runs are started or shown, which a study does not need.
IGNORED_KEYS = (
    *("program", "command", "entity", "project", "controller", "job", "image_uri", "display_name", "settings"),
    *("version", "prior_runs", "resume"),
)
# The first bracket is at max_iter / eta ** s epochs, a number that is computed.
EARLY_LIMITS = {"eta": 1_000_000, "min_iter": 1_000_000, "max_iter": 1_000_000, "s": 64}
DATASET_NAMES = ("dataset", "data", "data_set")


@dataclass
class ImportedStudy:
    """Sweep as a study.

    Attributes:
        table: the keys of a study file.
        notes: differences, and parts without an equivalent, a line each.
        about: the sweep's description.
    """

    table: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    about: str = ""

    def toml(self, source: str) -> str:
        """Return the text of the study file, with the notes at its head."""
        head = [
            f"Imported from the sweep {source}.",
            *self.about.splitlines(),
            *(f"note: {note}" for note in self.notes),
        ]
        keys = [f"{key} = {toml_value(value)}" for key, value in self.table.items() if key != "parameters"]
        parameters = [f"{key} = {toml_value(value)}" for key, value in self.table["parameters"].items()]
        comments = [f"# {''.join(c if c.isprintable() else ' ' for c in line)}" for line in head]
        return "\n".join([*comments, *keys, "", "[parameters]", *parameters]) + "\n"


def import_sweep(path: Path, renames: Sequence[str] = ()) -> ImportedStudy:
    """Import a sweep file as a study, which is checked and ready to launch.

    Args:
        path: a YAML file.
        renames: `theirs=ours` for parameters, metrics, and as `parameter.value=ours` for values.

    Raises:
        RequestError: names the file, the key and the value that is wrong.
    """
    sweep = read_document(path, style="yaml")
    try:
        study = _SweepReader(_parse_renames(renames)).read(sweep)
        parse_definition(study.table, _valid_name(path.stem) or "sweep", path.resolve().parent)
    except RequestError as error:
        raise type(error)(f"{path}: {error}") from error
    return study


def write_study(imported: ImportedStudy, source: Path, path: Path) -> None:
    """Write an imported study as a study file.

    Raises:
        RequestError: the file exists with other content, or cannot be written.
    """
    text = imported.toml(source.name)
    try:
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise RequestError(f"{path}: exists with other content; choose another name, or remove it")
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{path}: cannot be written: {error.strerror or error}") from error


def _parse_renames(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for theirs, equals, ours in pairs:
        if not (equals and theirs and ours):
            raise RequestError(f"--rename {theirs}: write theirs=ours, as --rename lr=learning_rate")
    return {theirs.strip(): ours.strip() for theirs, _, ours in pairs}


def _valid_name(text: object) -> str | None:
    name = str(text).strip()
    return name if is_name(name, ROOM) else None


class _SweepReader:
    """Reader of one sweep."""

    def __init__(self, renames: Mapping[str, str]) -> None:
        self.renames = renames
        self.study = ImportedStudy()

    def note(self, text: str) -> None:
        self.study.notes.append(text)

    def read(self, sweep: Mapping[str, Any]) -> ImportedStudy:
        """Read all keys of a sweep, in the order of a study file's."""
        if not isinstance(sweep.get("parameters"), Mapping):
            raise DefinitionError("is no sweep: it needs a table `parameters` beside `method` and `metric`")
        for key in sweep:
            if key not in (*KEYS, *IGNORED_KEYS):
                raise DefinitionError(describe_unknown("key", str(key), KEYS))
        table, self.study.about = self.study.table, str(sweep.get("description") or "")
        if sweep.get("name"):
            if name := _valid_name(sweep["name"]):
                table["name"] = name
            else:
                self.note(f"name = {shorten(sweep['name'])} cannot be a study's name; the file's name is used instead")
        parameters = self._parameters(dict(_flatten(sweep["parameters"])))
        self._metric(sweep.get("metric"))
        self._method(sweep)
        self._early_terminate(sweep.get("early_terminate"))
        if ignored := [key for key in IGNORED_KEYS if key in sweep]:
            self.note(f"{', '.join(ignored)}: they say how runs are started; here hpo launch and hpo worker do that")
        table["parameters"] = parameters
        return self.study

    # Parameters.

    def _parameters(self, specs: Mapping[str, Any]) -> dict[str, Any]:
        table = all_parameters(self._models(specs))
        parameters: dict[str, Any] = {}
        for theirs, spec in specs.items():
            if not isinstance(spec, Mapping):
                raise DefinitionError(
                    f"parameters.{theirs} = {shorten(spec)}: must be a table with value, values, or min and max"
                )
            ours = self._our_name(theirs, table)
            if theirs.lower() in DATASET_NAMES and ours not in table:
                self._dataset(theirs, spec)
            elif ours not in table:
                self.note(f"{theirs} has no equivalent and is left out; name one with --rename {theirs}=OURS")
            elif ours in parameters:
                raise DefinitionError(
                    f"parameters.{theirs}: is {ours}, which another parameter is already; rename one of them"
                )
            elif (literal := self._convert(theirs, table[ours], spec)) is not None:
                parameters[ours] = literal
        return parameters

    def _our_name(self, theirs: str, table: Mapping[str, Parameter]) -> str:
        """Return our name for a parameter: renamed, the same, or an alias; of a nested one, by its last part."""
        last = theirs.rpartition(".")[2]
        for name in (theirs, last):
            if name in self.renames:
                return self.renames[name]
        if last in table:
            return last
        return PARAMETER_ALIASES.get(normalize_name(last), last)

    def _models(self, specs: Mapping[str, Any]) -> list[str]:
        names = [theirs for theirs in specs if self._our_name(theirs, {"model": None}) == "model"]  # type: ignore[dict-item]
        parameter = all_parameters()["model"]
        values = [value for theirs in names for value in _listed_values(specs[theirs])]
        return [str(ours) for value in values if (ours := self._our_value(names[0], parameter, value)) is not None]

    def _convert(self, theirs: str, parameter: Parameter, spec: Mapping[str, Any]) -> Any:
        """Return the domain, or None if none of its values has an equivalent."""
        if listed := _listed_values(spec):
            translated = [ours for value in listed if (ours := self._our_value(theirs, parameter, value)) is not None]
            if not translated:
                return None
            spec = {**spec, **({"value": translated[0]} if "value" in spec else {"values": translated})}
        try:
            domain = convert_domain(parameter, spec)
        except HpoError as error:
            raise DefinitionError(f"parameters.{theirs}: {error}") from error
        if domain.note:
            self.note(f"{theirs}: {domain.note}")
        return domain.literal

    def _our_value(self, theirs: str, parameter: Parameter, value: Any) -> Value | None:
        """Return our value for one of theirs; None, with a note, if there is none."""
        if (renamed := self.renames.get(f"{theirs}.{value}")) is not None:
            return renamed
        if parameter.is_off(value):
            return OFF
        if isinstance(value, list) and (parameter.kind is list or parameter.separator is not None):
            return parameter.check(value)
        if parameter.kind in (int, float) and isinstance(value, str):
            try:
                return float(value)  # YAML reads 1e-4 as a text
            except ValueError:
                pass
        if parameter.kind is not str and isinstance(value, int | float):
            return value
        known = registry.models.names() if parameter.name == "model" else parameter.choices
        if parameter.kind is str and (value in known or (not known and isinstance(value, str))):
            return str(value)
        ours = VALUE_ALIASES.get(parameter.name, {}).get(normalize_name(str(value)), normalize_name(str(value)))
        if ours in known:
            return ours
        hint = f"; name one with --rename {theirs}.{value}=OURS" if parameter.kind is str else ""
        self.note(
            f"{theirs} = {shorten(value)} has no equivalent among the values of {parameter.name} and is left out{hint}"
        )
        return None

    def _dataset(self, theirs: str, spec: Mapping[str, Any]) -> None:
        names = _listed_values(spec)
        ours = DATASET_ALIASES.get(normalize_name(str(names[0])), str(names[0])) if len(names) == 1 else None
        if ours is None or not (registry.datasets.has(ours) or ours.endswith(".npz")):
            unknown = f"{theirs} = {shorten(names)} is no data set that is known here"
            self.note(f"{unknown}; name one in the study file: dataset = …")
        else:
            self.study.table["dataset"] = ours

    # Objective, sampler and pruner.

    def _metric(self, metric: object) -> None:
        table = self.study.table
        if metric is None:
            return self.note("it has no metric; the study optimizes the default objective")
        if not isinstance(metric, Mapping) or not isinstance(metric.get("name"), str):
            raise DefinitionError(f"metric = {shorten(metric)}: must be a table with name and goal")
        theirs = metric["name"]
        ours = self.renames.get(theirs) or METRIC_ALIASES.get(normalize_name(theirs), theirs)
        if not registry.metrics.has(ours):
            hint = f"name ours with --rename {theirs}=OURS"
            raise DefinitionError(
                f"metric.name = {shorten(theirs)}: {describe_unknown('metric', ours, registry.metrics.names())}; {hint}"
            )
        goal = str(metric.get("goal", "minimize"))
        if goal not in ("maximize", "minimize"):
            raise DefinitionError(f"metric.goal = {shorten(goal)}: must be maximize or minimize")
        is_default = registry.metrics.get(ours).direction == goal
        table["objective"] = ours if is_default else {"metric": ours, "direction": goal}
        if metric.get("target") is not None:
            table["target"] = metric["target"]
        return None

    def _method(self, sweep: Mapping[str, Any]) -> None:
        method, table = sweep.get("method"), self.study.table
        if not isinstance(method, str) or method not in METHODS:
            raise DefinitionError(f"method = {shorten(method)}: {describe_unknown('method', str(method), METHODS)}")
        table["sampler"] = METHODS[method]
        if method == "bayes":
            self.note(
                'method bayes: theirs is a Gaussian process and becomes the sampler tpe; ours of that kind is "gp"'
            )
        cap = sweep.get("run_cap")
        if method == "grid":
            if cap is not None:
                self.note(f"run_cap = {shorten(cap)} is left out: a grid has as many trials as points")
        elif cap is None:
            table["trials"] = DEFAULT_TRIALS
            self.note(f"it has no run_cap and would never end; trials = {DEFAULT_TRIALS} is set instead")
        else:
            table["trials"] = cap

    def _early_terminate(self, early: object) -> None:
        """Convert their hyperband to our asha: at epochs min_iter * eta ** k it stops runs outside the best 1 / eta."""
        if early is None:
            self.study.table["pruner"] = "none"
            return
        if not isinstance(early, Mapping) or early.get("type") != "hyperband":
            raise DefinitionError(f"early_terminate = {shorten(early)}: must be a table with type: hyperband")
        for key, most in EARLY_LIMITS.items():
            value = early.get(key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most):
                raise DefinitionError(f"early_terminate.{key} = {shorten(value)}: must be a whole number, 1 to {most}")
        eta, shortest, longest = early.get("eta", 3), early.get("min_iter"), early.get("max_iter")
        if shortest is None and longest is None:
            raise DefinitionError("early_terminate: needs min_iter, or max_iter with s")
        if shortest is None:
            first = longest / eta ** early.get("s", 1)
            shortest = max(1, math.floor(first))
            if shortest != first:
                self.note(f"early_terminate: its first bracket, epoch {first:g}, is rounded to epoch {shortest}")
        if early.get("strict"):
            self.note("early_terminate.strict has no equivalent: trials that are good enough go on")
        self.study.table["pruner"] = {"name": "asha", "min_resource": shortest, "reduction_factor": eta}


def _flatten(parameters: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every parameter by its name, a nested one with the names above it: `optimizer.lr`."""
    for name, spec in parameters.items():
        if isinstance(spec, Mapping) and isinstance(spec.get("parameters"), Mapping):
            yield from _flatten(spec["parameters"], f"{above}{name}.")
        else:
            yield f"{above}{name}", spec


def _listed_values(spec: object) -> list[Any]:
    """Return the values that a parameter's table lists, or its only one."""
    if not isinstance(spec, Mapping):
        return []
    listed = spec.get("values")
    return [spec["value"]] if "value" in spec else listed if isinstance(listed, list) else []
