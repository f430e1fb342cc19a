"""Words that mean something else in the company of others: the rest of a file says which meaning a word has.

`gamma` beside a focal loss is its exponent, `patience` beside `ReduceLROnPlateau` may be the schedule's, and a
`step_size` that is no smaller than all epochs counts steps. Such a parameter is left out with the reason, and a rename
decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hpo.config.aliases import canonical, find_aliases
from hpo.study.foreign.search import Choices, Constant, ForeignParameter, Range

__all__ = ["Company", "list_numbers"]

EARLY_STOPPING = ("earlystopping", "earlystop")
# Words by which the network of a file is of another architecture than a multilayer perceptron.
OTHER_NETWORKS = frozenset(
    (
        *("numheads", "nheads", "nhead", "attentionheads", "numattentionheads", "dmodel"),
        *("seqlen", "seqlength", "sequencelength", "vocabsize", "rnn", "lstm", "gru", "rnntype", "celltype"),
        *("bidirectional", "gnn", "lstmunits", "gruunits"),
    )
)
# Words for shares of all the data, beside which that of validation is one, too.
OTHER_SHARES = frozenset(
    f"{part}{word}" for part in ("train", "training", "test") for word in ("split", "size", "ratio", "fraction", "frac")
)


class Company:
    """Company of a parameter: the words and values of its file.

    Args:
        parameters: of the file.
        split: returns a parameter's tables and its own name.
        model_named: whether a model of ours is named, in the file or by the user.
        default_epochs: the epochs of a trial where the file names none.
    """

    def __init__(
        self,
        parameters: Sequence[ForeignParameter],
        split: Callable[[ForeignParameter], tuple[list[str], str]],
        *,
        model_named: bool,
        default_epochs: int,
    ) -> None:
        self._split = split
        self._model_named = model_named
        paths = [(each, *split(each)) for each in parameters]
        self._words = {canonical(part): part for _, tables, last in paths for part in (*tables, last)}
        self._waits = any(find_aliases(self._joined(each), ("plateau_patience",)) for each in parameters)
        self._texts = {canonical(value) for each in parameters for value in _values(each) if isinstance(value, str)}
        lengths = [max(list_numbers(each), default=0) for each, _, last in paths if canonical(last).endswith("epochs")]
        self._epochs = max(lengths, default=0) or default_epochs

    def find_other_meaning(self, theirs: ForeignParameter, ours: str) -> str | None:
        """Return why a parameter may mean something else than ours of that name in this company; None if it cannot."""
        rule = RULES.get(ours)
        return None if rule is None else rule(self, theirs)

    def _word(self, theirs: ForeignParameter) -> str:
        """Return a parameter's own name in canonical form."""
        return canonical(self._split(theirs)[1])

    def _joined(self, theirs: ForeignParameter) -> str:
        """Return the same after that of the table it is in: `scheduler.patience` is schedulerpatience."""
        tables, last = self._split(theirs)
        return canonical("".join((*tables[-1:], last)))

    def _names(self, *parts: str) -> bool:
        """Return whether a word of the file has one of these in it."""
        return any(part in word for word in self._words for part in parts)

    def _says(self, *parts: str) -> bool:
        """Return whether a text among the file's values has one of these in it."""
        return any(part in text for text in self._texts for part in parts)

    # Rules: each returns the reason, or nothing.

    def _of_patience(self, theirs: ForeignParameter) -> str | None:
        values = set(_values(theirs))
        if self._word(theirs) in EARLY_STOPPING and values and values <= {0, 1}:
            return "it is a switch, and not a number of epochs"
        if (
            self._word(theirs) == "patience"
            and self._says("plateau")
            and not self._waits
            and not self._names(*EARLY_STOPPING)
        ):
            return (
                "it may be that of early stopping or of reduce_on_plateau; "
                f"--rename {theirs.name}=patience, or {theirs.name}=plateau_patience"
            )
        return None

    def _of_gamma(self, theirs: ForeignParameter) -> str | None:
        if self._says("focal") and not find_aliases(self._joined(theirs), ("gamma",)):
            return f"beside a focal loss it may be its exponent; if it is the schedule's, --rename {theirs.name}=gamma"
        if "decayrate" in self._word(theirs) and self._names("decaysteps", "decayevery"):
            return "it is the factor of so many steps, and not of an epoch"
        return None

    def _of_step_epochs(self, theirs: ForeignParameter) -> str | None:
        if max(list_numbers(theirs), default=0) >= self._epochs:
            return f"in {self._epochs:g} epochs the rate would never fall; it may count steps"
        return None

    def _of_warmup(self, theirs: ForeignParameter) -> str | None:
        others = sum("warmup" in word for word in self._words)
        if isinstance(theirs.domain, Constant) and theirs.domain.value == 0 and others > 1:
            return "0 is off, and the file gives a warm-up in another unit"
        return None

    def _of_validation(self, theirs: ForeignParameter) -> str | None:
        others = [part for word, part in self._words.items() if word in OTHER_SHARES]
        if others and all(0 < value < 1 for value in list_numbers(theirs)):
            return (
                f"beside {', '.join(others)} it may be a share of all data, and is one of the training data here; "
                f"--rename {theirs.name}=validation if it is"
            )
        return None

    def _of_shape(self, theirs: ForeignParameter) -> str | None:  # noqa: ARG002  as the other rules have it
        found = [part for word, part in self._words.items() if word in OTHER_NETWORKS]
        if found and not self._model_named:
            return f"{', '.join(found)}: of another architecture than mlp; --set model=… chooses one"
        return None


# By our parameter, which a word may then not be.
RULES: Mapping[str, Callable[[Company, ForeignParameter], str | None]] = {
    "patience": Company._of_patience,
    "gamma": Company._of_gamma,
    "step_epochs": Company._of_step_epochs,
    **dict.fromkeys(("warmup", "warmup_steps", "warmup_epochs"), Company._of_warmup),
    "validation": Company._of_validation,
    **dict.fromkeys(("depth", "width", "widths"), Company._of_shape),
}


def _values(parameter: ForeignParameter) -> tuple[Any, ...]:
    """Return the values that can be listed; those that hold others are none of these."""
    domain = parameter.domain
    values = (domain.value,) if isinstance(domain, Constant) else domain.values if isinstance(domain, Choices) else ()
    return tuple(value for value in values if not isinstance(value, list | dict))


def list_numbers(parameter: ForeignParameter) -> Iterator[float]:
    """Yield the numbers among the values, and the ends of a range."""
    if isinstance(parameter.domain, Range):
        yield from (parameter.domain.low, parameter.domain.high)
    yield from (value for value in _values(parameter) if isinstance(value, int | float) and not isinstance(value, bool))
