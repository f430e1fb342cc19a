"""Request of an evaluation: which configurations are trained again, on which data, and what varies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpo.errors import RequestError
from hpo.study import Study
from hpo.study.definition import Source

__all__ = ["SEEDS", "TOP", "EvaluationRequest"]

TOP, SEEDS = 3, 5


@dataclass(frozen=True)
class EvaluationRequest:
    """Request of an evaluation, as the command's options have it; see `hpo.evaluate` for the attributes."""

    top: int = TOP
    seeds: int = SEEDS
    dataset: object = None
    datasets: Sequence[object] = ()
    refit: bool = False
    vary: Sequence[Source] = ("seed",)
    compare: str | Study | None = None

    def check(self) -> None:
        """Refuse options that exclude each other.

        Raises:
            RequestError: names them.
        """
        others = {"--dataset": self.dataset is not None, "--datasets": bool(self.datasets), "--refit": self.refit}
        others["--vary"] = len(self.vary) > 1
        given = [name for name, is_given in others.items() if is_given]
        if self.compare is not None and given:
            raise RequestError(
                f"evaluate --compare: both studies are compared on their own data and split; leave {given[0]} out"
            )
        if self.dataset is not None and self.datasets:
            raise RequestError("evaluate: give --dataset or --datasets, not both")
        if self.datasets and len({repr(each) for each in self.datasets}) < max(2, len(self.datasets)):
            raise RequestError("evaluate --datasets: takes two data sets or more, each once; name one with --dataset")
        if self.refit and len(self.vary) > 1:
            raise RequestError(
                "evaluate --refit: trains on training and validation data together, so there is no validation score "
                "to vary; leave --vary or --refit out"
            )
