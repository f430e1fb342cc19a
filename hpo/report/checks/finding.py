"""Findings: results of checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level"]

Level = Literal["ok", "note", "warning", "unknown"]


@dataclass(frozen=True)
class Finding:
    """Result of a check.

    Attributes:
        check: a name of the check, as `boundary`; one check may give several findings, as one per parameter.
        title: what was checked, a few words.
        level: `warning` is to be acted on, `note` to be known, `ok` is in order; `unknown` could not be computed.
        evidence: one sentence, with its numbers; of `unknown`, why it could not be computed.
        advice: one sentence, what to do; empty where there is nothing to do.
        toml: lines of a study file that do it; empty where none can.
        parameters: which parameters it is about, by name.
    """

    check: str
    title: str
    level: Level
    evidence: str
    advice: str = ""
    toml: str = ""
    parameters: tuple[str, ...] = ()
