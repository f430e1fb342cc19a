"""Texts as token ids: words of a vocabulary, numbered by how often they are in the training rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hpo.datasets.columns import explain_missing
from hpo.datasets.source import DatasetSource
from hpo.datasets.table_labels import TableLabels
from hpo.errors import DataError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["PADDING", "UNKNOWN", "TextEncoder", "TextSchema", "tokenize"]

Array = np.ndarray[Any, Any]
PADDING, UNKNOWN, FIRST = 0, 1, 2  # codes: behind the end of a text; words of no code of their own; the first word
MOST_WORDS, MOST_TOKENS = 20_000, 256  # where the source does not say
COVERED = 0.95  # share of texts that the default length holds whole
TOKEN = re.compile(r"\w+|[^\w\s]")
LONGEST_WORD = 100  # characters


def tokenize(text: str) -> list[str]:
    """Return the tokens of a text: words in lower case, and each punctuation mark."""
    return TOKEN.findall(text.lower())


class TextEncoder(BaseModel):
    """Encoder of texts as token ids. It is stored as JSON.

    Code 0 is behind the end of a text, 1 a word that is not listed, and i + 2 is `words[i]`.

    Attributes:
        columns: of the table, whose texts are joined in this order.
        words: the vocabulary, the most frequent first.
        length: tokens of a sample; longer texts are cut off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[str, ...] = Field(min_length=1, max_length=100)
    words: tuple[Annotated[str, Field(max_length=LONGEST_WORD)], ...] = Field(max_length=1_000_000)
    length: int = Field(ge=1, le=100_000)

    @classmethod
    def fit(cls, texts: Iterable[str], columns: Sequence[str], words: int | None, length: int | None) -> Self:
        """Return the encoder of training texts: words that are there at least twice, equally frequent ones by alphabet.

        Args:
            texts: those of the training rows.
            columns: that they are read from.
            words: the most that have a code of their own; None for 20,000.
            length: tokens of a sample; None for what holds 95 % of the texts whole, at most 256.
        """
        counts: Counter[str] = Counter()
        lengths = []
        for text in texts:
            tokens = tokenize(text)
            lengths.append(len(tokens))
            counts.update(tokens)
        known = [word for word, count in counts.items() if count > 1 and len(word) <= LONGEST_WORD]
        chosen = sorted(known, key=lambda word: (-counts[word], word))[: words or MOST_WORDS]
        covering = int(np.ceil(np.quantile(lengths, COVERED))) if lengths else 1
        return cls(columns=tuple(columns), words=tuple(chosen), length=length or max(1, min(MOST_TOKENS, covering)))

    @property
    def vocabulary(self) -> int:
        """The number of codes."""
        return FIRST + len(self.words)

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {word: FIRST + i for i, word in enumerate(self.words)}

    def apply(self, texts: Sequence[str]) -> Array:
        """Return the codes of texts, (N, length) of int32."""
        codes = np.full((len(texts), self.length), PADDING, np.int32)
        for row, text in enumerate(texts):
            found = [self._codes.get(token, UNKNOWN) for token in tokenize(text)[: self.length]]
            codes[row, : len(found)] = found
        return codes

    def read(self, frame: pl.DataFrame, where: str) -> Array:
        """Return the codes of the rows of a table, (N, length) of int32; a missing text is an empty one.

        Raises:
            DataError: a column is missing, or holds no texts.
        """
        return self.apply(join_columns(frame, self.columns, where))


def join_columns(frame: pl.DataFrame, columns: Sequence[str], where: str) -> list[str]:
    """Return the text of each row of a table: those of some columns, one after the other.

    Raises:
        DataError: a column is missing, or holds lists or objects.
    """
    import polars as pl

    for name in columns:
        if name not in frame.columns:
            raise DataError(f"{where}: {explain_missing(name, frame.columns)}")
        if frame[name].dtype.is_nested() or frame[name].dtype in (pl.Object, pl.Binary):
            raise DataError(f"{where}, column '{name}': holds lists or objects, no texts; name another as `text`")
    parts = [frame[name].cast(pl.String).fill_null("").to_list() for name in columns]
    return parts[0] if len(parts) == 1 else [" ".join(row) for row in zip(*parts, strict=True)]


class TextSchema(BaseModel):
    """Schema of a table whose samples are texts: how new rows are read.

    Attributes:
        encoder: of the texts.
        labels: of the rows.
    """

    model_config = ConfigDict(frozen=True)

    encoder: TextEncoder
    labels: TableLabels

    @classmethod
    def fit(cls, frame: pl.DataFrame, labels: TableLabels, source: DatasetSource, where: str, chosen: Array) -> Self:
        """Return the schema of a table, fitted to the rows for which `chosen` (N,) is true.

        Raises:
            DataError: a text column cannot be read, or its training rows have no word twice.
        """
        texts = join_columns(frame, source.text, where)
        training = [text for text, fits in zip(texts, chosen, strict=True) if fits]
        encoder = TextEncoder.fit(training, source.text, source.text_words, source.text_length)
        if not encoder.words:
            raise DataError(
                f"{where}, column '{source.text[0]}': no word is there twice in the training rows, so that there is "
                "nothing to learn from; name another column as `text`"
            )
        return cls(encoder=encoder, labels=labels)

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns that are read as texts, whatever they look like."""
        return self.encoder.columns

    def read(self, frame: pl.DataFrame, where: str, rows: Array | None = None) -> Array:  # noqa: ARG002  as of tables
        """Return the samples in the rows of a table, (N, length)."""
        return self.encoder.read(frame, where)

    def describe(self, columns: Sequence[str]) -> str:
        """Return a remark on how texts are read, and on columns that are not.

        Args:
            columns: of the table, without the label's.
        """
        named = ", ".join(f"'{name}'" for name in self.texts)
        others = [name for name in columns if name not in self.texts]
        left = f"; other columns are not read ({', '.join(others[:5])}{', …' if len(others) > 5 else ''})"
        return (
            f"text {named} is read as the first {self.encoder.length} tokens of each row, from a vocabulary of "
            f"{len(self.encoder.words):,} words{left if others else ''}"
        )
