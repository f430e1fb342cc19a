"""Weights & Biases tracker: trials as runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from typing_extensions import override

from hpo.config.parameter import Value
from hpo.errors import RequestError
from hpo.training.loggers.base import Tracker, missing_package_error
from hpo.training.member import Member, Status

if TYPE_CHECKING:
    import wandb

__all__ = ["WandB"]

PROJECT = "torch-hpo"
FAILED: tuple[Status | None, ...] = ("diverged", None)


class WandB(Tracker["wandb.Run"]):
    """Tracker of runs in the project WANDB_PROJECT, or else `torch-hpo`, in a group of the study's name."""

    @staticmethod
    @override
    def check() -> None:
        try:
            import wandb
        except ImportError:
            raise missing_package_error("wandb") from None
        mode = os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not wandb.api.api_key:
            raise RequestError("--tracker wandb: no API key; run wandb login, set WANDB_API_KEY, or WANDB_MODE=offline")

    @override
    def begin(self, member: Member, params: Mapping[str, Value], may_exist: bool) -> wandb.Run:
        import wandb

        identity = self._trials.identity(member)
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=self._trials.name(member),
            # The same for every attempt, whichever worker has it.
            id=hashlib.sha256(identity.encode()).hexdigest()[:16],
            group=self._trials.study,
            config={**params, "trial": self._trials.numbers[member.number]},
            resume="allow",
            reinit="create_new",  # a cohort's runs are open at the same time
            settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
        )

    @override
    def add_params(self, run: wandb.Run, params: Mapping[str, Value]) -> None:
        run.config.update(dict(params))  # type: ignore[no-untyped-call]

    @override
    def record(self, run: wandb.Run, metrics: Mapping[str, float], epoch: int) -> None:
        run.log(dict(metrics), step=epoch)

    @override
    def end(self, run: wandb.Run, status: Status | None, summary: Mapping[str, float]) -> None:
        run.summary.update({**summary, "status": status or "error"})
        run.finish(exit_code=1 if status in FAILED else 0)
