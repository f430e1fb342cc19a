"""State of the process that user code may change, and that later trials must find as it was."""

from __future__ import annotations

import gc
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from hpo.utils.exits import translate_exits
from hpo.utils.signals import SIGNALS
from hpo.utils.text import summarize_error

__all__ = ["contain_user_code", "keep_process_state"]

log = logging.getLogger("hpo.training")
HANDLED = (*SIGNALS, signal.SIGALRM)  # SIGCHLD has a handler of torch's, which is installed once
BACKENDS: Any = torch.backends  # whose modules declare little of what they have
# Of these, the ones of one operation fall back on those before them.
PRECISIONS = (
    BACKENDS, BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn,
    BACKENDS.mkldnn.matmul, BACKENDS.mkldnn.conv, BACKENDS.mkldnn.rnn,
)  # fmt: skip
ATTENTIONS = ("flash", "mem_efficient", "math", "cudnn")
FILTERS = "warnings filters"
OWN_VARIABLES = ("TORCH", "TRITON")  # beginnings of those that torch sets for itself as it is first used
UNKNOWN = object()  # what cannot be read, and so not be restored


@dataclass(frozen=True)
class Setting:
    """Setting of the whole process: its name, how it is read, and how a value that was read is written."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]

    def value(self) -> Any:
        """Return its value, or UNKNOWN where it cannot be read."""
        try:
            return self.read()
        except Exception:  # a removed folder, or torch's precisions where old and new ways to set them were mixed
            return UNKNOWN


@contextmanager
def contain_user_code(device: torch.device | None = None) -> Iterator[None]:
    """Run user code so that neither its exits nor what it changes of the process reach anything else.

    Args:
        device: whose generator is kept besides the CPU's.

    Raises:
        UserExitError: it would have ended the process.
    """
    with translate_exits(), keep_process_state(device):
        yield


@contextmanager
def keep_process_state(device: torch.device | None = None) -> Iterator[None]:
    """Leave the process as it was: generators of random numbers, torch's modes, folder, environment, signals, …

    What has changed is logged, but for the generators, which are there to be used, and filters of warnings, which every
    import may add to. It takes a third of a millisecond.
    """
    before = [setting.value() for setting in SETTINGS]
    draws, numpy_draws = random.getstate(), _read_numpy_generator()
    try:
        with torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
            yield
    finally:
        random.setstate(draws)
        _write_numpy_generator(numpy_draws)
        names = [setting.name for setting, value in zip(SETTINGS, before, strict=True) if _restore(setting, value)]
        names = [name for name in names if name != FILTERS]
        if names:
            log.info("put back what training has changed of the process: %s", ", ".join(names))


def _restore(setting: Setting, value: Any) -> bool:
    """Restore a setting; return whether it had changed."""
    if value is UNKNOWN or setting.value() == value:
        return False
    try:
        setting.write(value)
    except Exception as error:
        log.warning("%s cannot be put back as it was before training: %s", setting.name, summarize_error(error))
        return False
    return True


def _read_numpy_generator() -> tuple[Any, Any]:
    return np.random.mtrand.get_bit_generator(), np.random.get_state(legacy=False)


def _write_numpy_generator(generator: tuple[Any, Any]) -> None:
    np.random.mtrand.set_bit_generator(generator[0])  # another kind would not take the state
    np.random.set_state(generator[1])


# Python and the operating system.


def _read_handlers() -> dict[signal.Signals, Any]:
    """Return the handlers, but for those that were not installed from Python."""
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    return {number: handler for number, handler in handlers.items() if handler is not None}


def _write_handlers(handlers: dict[signal.Signals, Any]) -> None:
    if threading.current_thread() is threading.main_thread():  # only there they can be set, by user code too
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _has_timer() -> bool:
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


def _write_timer(running: bool) -> None:
    if not running:  # one that ran before has gone on meanwhile
        signal.setitimer(signal.ITIMER_REAL, 0)


def _read_umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _read_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}


def _write_environment(variables: dict[str, str]) -> None:
    for name in [name for name in _read_environment() if name not in variables]:
        del os.environ[name]
    os.environ.update(variables)
    time.tzset()  # for TZ may be among them


def _read_streams() -> tuple[Any, ...]:
    return sys.stdin, sys.stdout, sys.stderr, sys.excepthook


def _write_streams(streams: tuple[Any, ...]) -> None:
    sys.stdin, sys.stdout, sys.stderr, sys.excepthook = streams


def _write_path(path: Sequence[str]) -> None:
    sys.path[:] = path


def _read_filters() -> tuple[list[Any], Any]:
    return list(warnings.filters), warnings.showwarning


def _write_filters(state: tuple[list[Any], Any]) -> None:
    warnings.resetwarnings()  # which also lets Python forget what it has filtered by the old ones
    filters: Any = warnings.filters
    filters[:], warnings.showwarning = state


def _read_logging() -> tuple[int, list[tuple[logging.Logger, Any]]]:
    """Return the state of the root logger and of ours."""
    names = [name for name in logging.root.manager.loggerDict if name == "hpo" or name.startswith("hpo.")]
    loggers = [logging.root, *map(logging.getLogger, names)]
    return logging.root.manager.disable, [(each, _logger_state(each)) for each in loggers]


def _logger_state(logger: logging.Logger) -> Any:
    handlers = [(handler, handler.level) for handler in logger.handlers]
    return logger.level, logger.disabled, logger.propagate, list(logger.filters), handlers


def _write_logging(state: tuple[int, list[tuple[logging.Logger, Any]]]) -> None:
    disabled, loggers = state
    for logger, (level, *others) in loggers:
        logger.disabled, logger.propagate, logger.filters, handlers = others
        logger.handlers[:] = [handler for handler, _ in handlers]
        for handler, threshold in handlers:
            handler.setLevel(threshold)
        logger.setLevel(level)
    logging.disable(disabled)


# torch.


def _write_device(device: torch.device) -> None:
    # The default is the CPU; a default that is set takes time at every call.
    torch.set_default_device(None if device.type == "cpu" else device)


def _read_deterministic() -> tuple[bool, bool, bool]:
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fills: bool = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    return torch.are_deterministic_algorithms_enabled(), warn_only, fills


def _write_deterministic(state: tuple[bool, bool, bool]) -> None:
    torch.use_deterministic_algorithms(state[0], warn_only=state[1])
    torch.utils.deterministic.fill_uninitialized_memory = state[2]  # type: ignore[attr-defined]


def _read_cudnn() -> tuple[bool, bool, bool]:
    return BACKENDS.cudnn.enabled, BACKENDS.cudnn.benchmark, BACKENDS.cudnn.deterministic


def _write_cudnn(state: tuple[bool, bool, bool]) -> None:
    BACKENDS.cudnn.enabled, BACKENDS.cudnn.benchmark, BACKENDS.cudnn.deterministic = state


def _read_precisions() -> list[str]:
    return [module.fp32_precision for module in PRECISIONS]


def _write_precisions(state: list[str]) -> None:
    for module, precision in zip(PRECISIONS, state, strict=True):
        module.fp32_precision = precision


def _read_attentions() -> list[bool]:
    return [getattr(BACKENDS.cuda, f"{name}_sdp_enabled")() for name in ATTENTIONS]


def _write_attentions(state: list[bool]) -> None:
    for name, enabled in zip(ATTENTIONS, state, strict=True):
        getattr(BACKENDS.cuda, f"enable_{name}_sdp")(enabled)


def _read_autocast() -> list[tuple[bool, torch.dtype]]:
    return [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")]


def _write_autocast(state: list[tuple[bool, torch.dtype]]) -> None:
    for kind, (enabled, dtype) in zip(("cpu", "cuda"), state, strict=True):
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)


def _read_anomalies() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _write_anomalies(state: tuple[bool, bool]) -> None:
    torch.autograd.set_detect_anomaly(*state)


def _flushes_denormals() -> bool:
    """Return whether this thread rounds the smallest numbers to zero, which torch can be told and not be asked."""
    half = sys.float_info.min
    half /= 2
    return half == 0


def _read_hooks() -> dict[str, dict[Any, Any]]:
    """Return the hooks that every module calls."""
    values = vars(torch.nn.modules.module)
    return {name: dict(hooks) for name, hooks in values.items() if name.startswith("_global_") and _is_dict(hooks)}


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


def _write_hooks(state: dict[str, dict[Any, Any]]) -> None:
    for name, hooks in state.items():
        found = vars(torch.nn.modules.module)[name]
        found.clear()
        found.update(hooks)


SETTINGS = (
    Setting("alarm timer", _has_timer, _write_timer),
    Setting("signal handlers", _read_handlers, _write_handlers),
    Setting(
        "blocked signals",
        partial(signal.pthread_sigmask, signal.SIG_BLOCK, ()),
        partial(signal.pthread_sigmask, signal.SIG_SETMASK),
    ),
    Setting("working directory", os.getcwd, os.chdir),
    Setting("umask", _read_umask, os.umask),
    Setting("environment variables", _read_environment, _write_environment),
    Setting("locale", lambda: locale.setlocale(locale.LC_ALL), lambda value: locale.setlocale(locale.LC_ALL, value)),
    Setting("sys.path", lambda: list(sys.path), _write_path),
    Setting("standard streams", _read_streams, _write_streams),
    Setting("thread switch interval", sys.getswitchinterval, sys.setswitchinterval),
    Setting("socket timeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
    Setting("garbage collection threshold", gc.get_threshold, lambda value: gc.set_threshold(*value)),
    Setting("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("garbage collection", gc.isenabled, lambda enabled: gc.enable() if enabled else gc.disable()),
    Setting(FILTERS, _read_filters, _write_filters),
    Setting("logging", _read_logging, _write_logging),
    Setting("numpy.seterr", np.geterr, lambda value: np.seterr(**value)),
    Setting("default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Setting("default device", torch.get_default_device, _write_device),
    Setting("grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Setting("anomaly detection", _read_anomalies, _write_anomalies),
    Setting("autocast", _read_autocast, _write_autocast),
    Setting("threads", torch.get_num_threads, torch.set_num_threads),
    Setting("flushing of denormal numbers", _flushes_denormals, torch.set_flush_denormal),
    Setting("deterministic algorithms", _read_deterministic, _write_deterministic),
    Setting("cuDNN flags", _read_cudnn, _write_cudnn),
    Setting("float32 matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    Setting("float32 precisions", _read_precisions, _write_precisions),
    Setting("attention kernels", _read_attentions, _write_attentions),
    Setting("hooks of all modules", _read_hooks, _write_hooks),
)
