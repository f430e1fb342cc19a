"""Source of a data set: the options by which a file or folder becomes training, validation and test data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from hpo.config.choices import Task
from hpo.config.trial_config import all_parameters
from hpo.errors import DefinitionError, describe_unknown
from hpo.utils.documents import parse_toml
from hpo.utils.files import absolute_path
from hpo.utils.text import shorten
from hpo.utils.toml import toml_value

__all__ = ["DatasetSource", "parse_source", "spell_inline", "spell_source"]

WORDS: Mapping[str, Task] = {
    "classification": "classification",
    "binary": "classification",
    "multiclass": "classification",
    "multilabel": "multilabel",
    "regression": "regression",
}
LISTS = ("label", "drop", "text")
LARGEST_SIDE, LARGEST_COUNT = 4096, 100_000
COLUMNS = "a column's name, or a list of them"
COUNT = f"a whole number from 1 to {LARGEST_COUNT}"
EXPECTED: Mapping[str, str] = {
    "label": COLUMNS,
    "drop": COLUMNS,
    "test": "a file or folder, or a fraction below 1",
    "validation": "a file or folder, or a fraction between 0 and 1",
    "group": "a column's name",
    "time": "a column's name",
    "weight": "a column's name",
    "resize": f"[height, width], whole numbers from 1 to {LARGEST_SIDE} pixels",
    "text": COLUMNS,
    "text_words": COUNT,
    "text_length": COUNT,
}
TEXT_OPTIONS = ("text", "text_words", "text_length")
EXAMPLE = 'dataset = { path = "houses.csv", label = "price" }'


class DatasetSource(BaseModel):
    """Options of the key `dataset` in a study file, beside the path.

    Attributes:
        label: the columns that are to be predicted.
        drop: columns that are no features.
        test: the file or folder of the test data, or the fraction of the samples held out for them; 0 holds none out.
        validation: the file or folder of the validation data, or the fraction split off the training data, which is
            then the default of the parameter `validation`.
        group: the column whose values stay together on one side of a split.
        time: the column by which validation and test data are the latest.
        weight: the column of the samples' weights in training.
        task: instead of the one that the labels suggest; `binary` and `multiclass` are classification, checked.
        resize: height and width that images are brought to.
        text: the columns whose texts are the samples, as token ids.
        text_words: the most words that have a code of their own; None for 20,000.
        text_length: tokens of a sample; None for what holds nearly all texts whole, at most 256.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    test: str | float | None = None
    validation: str | float | None = None
    group: str | None = None
    time: str | None = None
    weight: str | None = None
    task: Task | Literal["binary", "multiclass"] | None = None
    resize: tuple[int, int] | None = None
    text: tuple[str, ...] = ()
    text_words: int | None = None
    text_length: int | None = None

    @field_validator("validation")
    @classmethod
    def _check_fraction(cls, value: str | float | None) -> str | float | None:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError(EXPECTED["validation"])
        return value

    @field_validator("resize")
    @classmethod
    def _check_size(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not all(1 <= side <= LARGEST_SIDE for side in value):
            raise ValueError(EXPECTED["resize"])
        return value

    @field_validator("text_words", "text_length")
    @classmethod
    def _check_count(cls, value: int | None) -> int | None:
        if value is not None and not 1 <= value <= LARGEST_COUNT:
            raise ValueError(COUNT)
        return value

    @model_serializer(mode="wrap")
    def _write(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write the options of texts only where they are given, so that sources of before stay what they are."""
        written: dict[str, Any] = write(self)
        unused = [name for name in TEXT_OPTIONS if not getattr(self, name)]
        return {name: value for name, value in written.items() if name not in unused}

    @property
    def given(self) -> set[str]:
        """The options that are not their defaults, whether they were written or come from a stored study."""
        return {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}

    @property
    def asked_task(self) -> Task | None:
        """The task, in the words of a configuration."""
        return None if self.task is None else WORDS[self.task]

    def resolve(self, base: Path) -> DatasetSource:
        """Return the source with absolute paths; relative ones start from the folder `base`."""
        parts = {
            name: str(absolute_path(base / Path(value).expanduser()))
            for name in ("test", "validation")
            if isinstance(value := getattr(self, name), str)
        }
        return self.model_copy(update=parts)


def parse_source(value: object) -> tuple[str, DatasetSource | None]:
    """Parse the key `dataset`: a name or a path; or a table of `path` and options, also as TOML writes it in one line.

    Returns:
        The name or path as it is given, and the options; None without any.

    Raises:
        DefinitionError: it is neither, or an option is unknown or wrong.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = parse_toml(f"dataset = {value}")["dataset"]
        except DefinitionError as error:
            raise DefinitionError(f"dataset = {shorten(value, quote=False)}: {error}; write it as {EXAMPLE}") from error
    if isinstance(value, str) and value:
        return value, None
    if not isinstance(value, Mapping):
        raise DefinitionError(f"dataset = {shorten(value)}: give a name, a path, or a table, as {EXAMPLE}")
    options = dict(value)
    name = options.pop("path", None) or options.pop("name", None)
    if not isinstance(name, str):
        raise DefinitionError(f"dataset = {shorten(value)}: has no path; write it as {EXAMPLE}")
    for key in options:
        if key not in DatasetSource.model_fields and key in all_parameters():
            raise DefinitionError(
                f"dataset, {key}: is a parameter of training, no option of a data set; write it under [parameters] of "
                f"a study file, or as --set {key}=…"
            )
        if key not in DatasetSource.model_fields:
            raise DefinitionError(
                f"dataset: {describe_unknown('key', str(key), ['path', *DatasetSource.model_fields])}"
            )
    return name, _make_source(options) if options else None


def _make_source(options: dict[str, Any]) -> DatasetSource:
    for key in LISTS:
        if isinstance(options.get(key), str):
            options[key] = (options[key],)
    if (task := options.get("task")) is not None and task not in WORDS:
        raise DefinitionError(f"dataset: {describe_unknown('task', str(task), WORDS)}")
    try:
        return DatasetSource.model_validate(options)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        raise DefinitionError(f"dataset, {key} = {shorten(options[key])}: must be {EXPECTED[key]}") from error


def spell_source(name: str, source: DatasetSource | None) -> str | dict[str, Any]:
    """Return what a study file has under `dataset`: the name, or a table of path and options."""
    if source is None:
        return name
    options = source.model_dump(mode="json", exclude_defaults=True)
    for key in LISTS:
        if len(options.get(key, ())) == 1:
            options[key] = options[key][0]
    return {"path": name, **options}


def spell_inline(name: str, source: DatasetSource | None) -> str:
    """Return the same as the option `--dataset` takes it."""
    return name if source is None else toml_value(spell_source(name, source))
