"""Readers of other tools' files, of which the content of a file chooses one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from hpo.errors import DefinitionError, ImportRefusedError, RequestError
from hpo.study.foreign import hydra, katib, keras_tuner, nni, optuna_script, ray_tune, wandb_python
from hpo.study.foreign.domains import Problems
from hpo.study.foreign.python_source import parse_source
from hpo.study.foreign.search import Computed, ForeignSearch
from hpo.study.foreign.wandb import is_sweep, read_sweep
from hpo.utils.documents import read_document, read_python
from hpo.utils.text import shorten

__all__ = ["READERS", "Document", "Reader", "read_search"]

Document = Mapping[str, Any] | str  # the table of a YAML or JSON file, or the text of a Python file


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reader of one tool's files.

    Attributes:
        kind: what it reads, for messages: "Weights & Biases sweep".
        recognizes: returns, of a document and its path, whether it is one of these; it raises nothing.
        read: returns the search; it raises a RequestError that names the key and the value, but not the file.
    """

    kind: str
    recognizes: Callable[[Document, Path], bool]
    read: Callable[[Document, Path], ForeignSearch]


SQLITE = b"SQLite format 3\0"  # the first bytes of such a database
# The first that recognizes a file reads it, so the most particular come first.
READERS: tuple[Reader, ...] = (
    Reader("Ray Tune search space (Python)", ray_tune.recognizes, ray_tune.read),
    Reader("Optuna objective function (Python)", optuna_script.recognizes, optuna_script.read),
    Reader("Weights & Biases sweep (Python)", wandb_python.recognizes, wandb_python.read),
    Reader("Katib experiment (YAML)", katib.recognizes, katib.read),
    Reader("Hydra configuration with a sweeper (YAML)", hydra.recognizes, hydra.read),
    Reader("KerasTuner hyperparameters (JSON)", keras_tuner.recognizes, keras_tuner.read),
    Reader("NNI search space or experiment (JSON, YAML)", nni.recognizes, nni.read),
    Reader("Weights & Biases sweep (YAML, JSON)", is_sweep, read_sweep),
)

NOT_PYTHON: Mapping[str, str] = {  # what is read of tools whose Python is not, by the module
    "keras_tuner": "is Python of KerasTuner, which is not read; import the oracle.json that the tuner writes in its "
    "folder, or what hp.get_config() returns, as JSON",
    "nni": "is Python of NNI, which is not read; import its search space, as a file of JSON or YAML",
}


def read_search(path: Path, left_out: Collection[str] = (), *, computed: bool = False) -> ForeignSearch:
    """Read the search that a file of another tool describes. A Python file is parsed and never run.

    Args:
        path: of a YAML, JSON or Python file.
        left_out: parameters that need not be readable.
        computed: whether parameters are taken whose values only the other tool's code knows.

    Raises:
        RequestError: the file cannot be read, is of no known tool, or is wrong; the message begins with the path.
    """
    document = _read(path)
    reader = next((reader for reader in READERS if reader.recognizes(document, path)), None)
    if reader is None:
        _check_python(path, document)
        kinds = ", ".join(reader.kind for reader in READERS)
        raise DefinitionError(f"{path}: is none of the files that can be imported: {kinds}")
    try:
        return _check_readable(reader.read(document, path), left_out, computed=computed)
    except ImportRefusedError as error:
        raise ImportRefusedError(f"{path}: {error}", error.lines) from error
    except RequestError as error:
        raise type(error)(f"{path}: {error}") from error


def _check_python(path: Path, document: Document) -> None:
    """Refuse a Python file that cannot be parsed: what it is may stand after the place where it is wrong.

    So is one of a tool whose Python is not read.

    Raises:
        DefinitionError: names the line, or the file that is read in its place.
    """
    if isinstance(document, str):
        try:
            imports = parse_source(document).imports.values()
        except DefinitionError as error:
            raise DefinitionError(f"{path}: {error}") from error
        modules = {name.partition(".")[0] for name in imports}
        for module, advice in NOT_PYTHON.items():
            if module in modules:
                raise DefinitionError(f"{path}: {advice}")


def _check_readable(search: ForeignSearch, left_out: Collection[str], *, computed: bool) -> ForeignSearch:
    """Return a search, or refuse all that cannot be read at once."""
    problems = Problems()
    problems.lines += [
        f"{shorten(each.name, quote=False)}: {each.domain.problem}"
        for each in search.parameters
        if isinstance(each.domain, Computed) and each.domain.problem and each.name not in left_out
        if not (computed and each.domain.expression)
    ]
    problems.lines += search.problems
    problems.check("things" if search.problems else "parameters")
    return search


def _read(path: Path) -> Document:
    suffix = path.suffix.lower()
    if _is_database(path):
        raise DefinitionError(
            f"{path}: is a database, whose studies need no import: hpo list --storage sqlite:///{path} lists those of "
            "Optuna"
        )
    if suffix == ".py":
        return read_python(path)
    return read_document(path, style="json" if suffix == ".json" else "yaml")


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE)) == SQLITE
    except (OSError, ValueError):
        return False
