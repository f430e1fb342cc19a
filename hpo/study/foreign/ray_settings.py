"""Settings of Ray Tune beside a search space: metric, number of samples, search algorithm and scheduler."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hpo.errors import DefinitionError
from hpo.study.foreign import hugging_face
from hpo.study.foreign.domains import count, number
from hpo.study.foreign.python_source import Source, UnreadableError, describe
from hpo.study.foreign.search import Method
from hpo.utils.text import shorten

__all__ = ["read_settings"]

# Functions of `ray` whose keywords describe the search, by their last names.
CONFIGURING = ("run", "Tuner", "TuneConfig", "RunConfig", "run_experiments")
METHODS: Mapping[str, Method] = {
    "optuna": "tpe",
    "hyperopt": "tpe",
    "tunebohb": "tpe",
    "bohb": "tpe",
    "bayesopt": "gp",
    "ax": "gp",
    "hebo": "gp",
    "basicvariantgenerator": "random",
    "random": "random",
}
DIRECTIONS = {"min": "minimize", "max": "maximize", "minimize": "minimize", "maximize": "maximize"}
# Settings of `Trainer.hyperparameter_search` of Hugging Face that Ray knows under another name.
HUGGING_FACE = {"n_trials": "num_samples", "hp_name": "name"}
STARTUP = "n_initial_points"  # of HyperOpt: the trials before its model is used
SEEDS = ("seed", "random_state", "random_state_seed")  # names of a search algorithm's, each of which has one
POINTS = "points_to_evaluate"
READ = ("metric", "mode", "space", "max_concurrent", STARTUP, POINTS, *SEEDS)  # of a search algorithm
EPOCH_ATTRIBUTES = ("training_iteration", "epoch", "epochs")
SECONDS = "time_total_s"
TIMES = ("max_t", "grace_period")  # options of a scheduler that are times
EPOCH_OPTIONS = ("min_resource", "max_resource", "n_warmup_steps")  # of a pruner
FIFO = ("fifo", "fifoscheduler")


class _Settings:
    """Settings of a file by name, with what is lost in reading them."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.notes: list[str] = []
        self.nodes: dict[str, ast.expr] = {}
        self.objectives: dict[str, Any] = {}  # of Hugging Face's trainer
        for call in source.calls():
            module, _, name = source.origin(call.func).rpartition(".")
            if name in CONFIGURING and module.split(".")[0] == "ray":
                self.nodes.update({word.arg: word.value for word in call.keywords if word.arg})
            elif hugging_face.is_search(call):
                given = hugging_face.list_arguments(call)
                self.nodes.update({HUGGING_FACE.get(key, key): node for key, node in given.items()})
                self.objectives, notes = hugging_face.name_objectives(source, call)
                self.notes += notes

    def value(self, name: str, nodes: Mapping[str, ast.expr] | None = None) -> Any:
        """Return the value of a setting, or None, with a note where it is known only when the file runs."""
        nodes = self.nodes if nodes is None else nodes
        if name not in nodes:
            return None
        try:
            return self.source.evaluate(nodes[name])
        except UnreadableError:
            self.notes.append(
                f"{name} = {describe(nodes[name])} (line {nodes[name].lineno}) is known only when the file runs"
            )
            return None

    def component(self, name: str) -> tuple[str, dict[str, ast.expr]]:
        """Return the name of the class of a scheduler or a search algorithm, and its keywords."""
        node = self.source.resolve(self.nodes[name]) if name in self.nodes else ast.Constant(None)
        if isinstance(node, ast.Constant):
            return str(node.value or ""), {}
        if not isinstance(node, ast.Call):
            return describe(node), {}
        kind = node.func.attr if isinstance(node.func, ast.Attribute) else describe(node.func)
        imported = self.source.origin(node.func).rpartition(".")[2]
        if kind == "ConcurrencyLimiter" and node.args:
            self.nodes[name] = node.args[0]
            return self.component(name)
        return imported or kind, {word.arg: word.value for word in node.keywords if word.arg}


def read_settings(source: Source, grids: Sequence[int], *, drawn: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the settings as attributes of a search, and notes.

    Args:
        source: the file.
        grids: the number of values of each grid search.
        drawn: whether the space has domains that are drawn from, too.

    Raises:
        DefinitionError: a setting is wrong.
    """
    settings = _Settings(source)
    scheduler, options = settings.component("scheduler")
    algorithm, arguments = settings.component("search_alg")
    pruner = _read_scheduler(settings, scheduler, options)
    metric, mode = (
        next(
            (found for nodes in (None, options, arguments) if (found := settings.value(name, nodes)) is not None), None
        )
        for name in ("metric", "mode")
    )
    if mode is not None and mode not in DIRECTIONS:
        raise DefinitionError(f"mode = {shorten(mode)}: must be min or max")
    method: Method | None
    method, trials = _read_samples(settings, grids, drawn=drawn)
    if algorithm:
        name = algorithm.removesuffix("Search").removesuffix("Optimizer").lower()
        method = METHODS.get(name)
        if method is None:
            settings.notes.append(f"search algorithm {shorten(algorithm)} has no equivalent among the samplers")
        settings.notes += _describe_rest(algorithm, arguments)
    budget, name = settings.value("time_budget_s"), settings.value("name")
    _describe_stop(settings)
    found = {
        "metric": metric if isinstance(metric, str) else None,
        "direction": DIRECTIONS.get(str(mode)),
        "method": method,
        "sampler_options": _read_options(settings, method, arguments),
        "seed": _read_seed(settings, arguments),
        "trials": trials,
        "timeout": None if budget is None else number(budget, "time_budget_s"),
        "pruner": pruner,
        "name": name if isinstance(name, str) else None,
    }
    return found | settings.objectives, settings.notes


def _read_options(settings: _Settings, method: Method | None, arguments: Mapping[str, ast.expr]) -> dict[str, Any]:
    """Return the options of our sampler that a search algorithm is given."""
    first = settings.value(STARTUP, arguments) if method == "tpe" else None
    return {} if first is None else {"n_startup_trials": first}


def _read_seed(settings: _Settings, arguments: Mapping[str, ast.expr]) -> int | None:
    """Return the seed of a search algorithm's random numbers, if it is given one."""
    values = [settings.value(name, arguments) for name in SEEDS]
    return next((value for value in values if isinstance(value, int)), None)


def _describe_rest(algorithm: str, arguments: Mapping[str, ast.expr]) -> Iterator[str]:
    """Yield a note on the settings of a search algorithm that a study does not have."""
    left = [f"{name} = {describe(node)}" for name, node in arguments.items() if name not in READ]
    if left:
        yield f"these settings of {algorithm} have no equivalent: {', '.join(left)}"
    if POINTS in arguments:
        given = f"{POINTS} = {describe(arguments[POINTS])}"
        yield f"{given} is left out; warm_start in the study file says which trials come first"


def _read_samples(settings: _Settings, grids: Sequence[int], *, drawn: bool) -> tuple[Method, int | None]:
    """Return the method and the number of trials: num_samples for each point of the grid."""
    samples = settings.value("num_samples")
    points = math.prod(grids)
    if samples is not None and samples != -1:
        samples = count(samples, "num_samples")
    given = "num_samples" in settings.nodes
    if grids and not drawn:
        if samples not in (None, 1):
            settings.notes.append(f"num_samples = {samples}: theirs runs each point of the grid as often; here once")
        return "grid", None
    if samples == -1 or (samples is None and given):
        return "random", None
    trials = (samples or 1) * points
    if grids:
        settings.notes.append(
            f"theirs runs all {points} points of the grid with {samples or 1} draws of the rest each; here all "
            f"parameters of {trials} trials are drawn"
        )
    if not given and not grids:
        settings.notes.append("it gives no num_samples, which is 1 there")
    return "random", trials


def _describe_stop(settings: _Settings) -> None:
    """Note when a trial ends, which a study file says in another way."""
    stop = settings.value("stop")
    for name, value in stop.items() if isinstance(stop, dict) else ():
        if name == EPOCH_ATTRIBUTES[0]:
            settings.notes.append(f"a trial ends after {value} iterations; if these are epochs, give epochs = {value}")
        elif name == SECONDS:
            settings.notes.append(f"stop: {name} = {value} ends a trial there; {_name_timeout(value)}")
        else:
            settings.notes.append(f"stop: {name} = {shorten(value)} ends a trial there, and has no equivalent")


# Schedulers.


def _read_scheduler(settings: _Settings, name: str, options: Mapping[str, ast.expr]) -> Any:
    if not name or name.lower() in FIFO:
        return None
    short = name.lower().removesuffix("scheduler").replace("_", "")
    if short not in SCHEDULERS:
        settings.notes.append(f"scheduler {shorten(name)} has no equivalent among the pruners")
        return None
    default = SECONDS if short == "medianstoppingrule" else EPOCH_ATTRIBUTES[0]
    attribute = settings.value("time_attr", options) or default
    if attribute not in EPOCH_ATTRIBUTES:
        times = {key: settings.value(key, options) for key in TIMES if key in options}
        settings.notes.append(_explain_time(name, attribute, times))
        others = {key: value for key, value in options.items() if key not in TIMES}
        pruner = SCHEDULERS[short](settings, others)
        return {key: value for key, value in pruner.items() if key not in EPOCH_OPTIONS}
    if SCHEDULERS[short] is _read_asha:
        longest = _whole(settings, options, "max_t", 100)
        settings.notes.append(
            f"its scheduler ends a trial after {longest} iterations; if these are epochs, give epochs = {longest}"
        )
    return SCHEDULERS[short](settings, options)


def _explain_time(name: str, attribute: object, times: Mapping[str, Any]) -> str:
    """Say what a scheduler counts that counts no epochs, and what a study has instead."""
    given = ", ".join(f"{key} = {value}" for key, value in times.items() if value is not None)
    counted = f"{attribute} ({given})" if given else str(attribute)
    note = f"scheduler {name} counts {counted} there, and its pruner counts epochs here, by its own defaults"
    longest = times.get("max_t")
    return note if attribute != SECONDS or longest is None else f"{note}; {_name_timeout(longest)}"


def _name_timeout(seconds: object) -> str:
    return f"trial_timeout = {seconds} in the study file fails a trial after so many seconds"


def _whole(settings: _Settings, options: Mapping[str, ast.expr], name: str, default: int) -> int:
    value = settings.value(name, options)
    return default if value is None else count(value, name)


def _read_asha(settings: _Settings, options: Mapping[str, ast.expr]) -> Any:
    if _whole(settings, options, "brackets", 1) > 1:
        settings.notes.append("brackets: asha has one here; hyperband has several")
    return {
        "name": "asha",
        "min_resource": _whole(settings, options, "grace_period", 1),
        "reduction_factor": _whole(settings, options, "reduction_factor", 4),
    }


def _read_hyperband(settings: _Settings, options: Mapping[str, ast.expr]) -> Any:
    return {
        "name": "hyperband",
        "max_resource": _whole(settings, options, "max_t", 81),
        "reduction_factor": _whole(settings, options, "reduction_factor", 3),
    }


def _read_median(settings: _Settings, options: Mapping[str, ast.expr]) -> Any:
    pruner: dict[str, Any] = {
        "name": "median",
        "n_startup_trials": _whole(settings, options, "min_samples_required", 3),
    }
    if "grace_period" in options:
        pruner["n_warmup_steps"] = _whole(settings, options, "grace_period", 1)
    return pruner


SCHEDULERS: Mapping[str, Callable[[_Settings, Mapping[str, ast.expr]], Any]] = {
    "asha": _read_asha,
    "asynchyperband": _read_asha,
    "hyperband": _read_hyperband,
    "hyperbandforbohb": _read_hyperband,
    "hbbohb": _read_hyperband,
    "medianstoppingrule": _read_median,
}
