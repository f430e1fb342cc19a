"""Links of trials to their study, through which training loops of the user's own ask and store."""

from __future__ import annotations

from functools import partial

from hpo.study import ClaimedTrial, Study
from hpo.training.suggestions import TrialLink

__all__ = ["make_link"]


def make_link(study: Study, claim: ClaimedTrial) -> TrialLink:
    """Return the link of a claimed trial: to the study's sampler, or to what an evaluated trial was given."""
    evaluation = study.definition.evaluation
    if evaluation is None:
        return TrialLink(claim.trial, claim.number, choose_sampler=partial(study.use_sampler_of, claim))
    label = claim.trial.params.get("configuration")
    candidate = next(each for each in evaluation.candidates if each.label == label)
    source = f"'{candidate.label}' of study '{evaluation.of}'"
    return TrialLink(claim.trial, claim.number, candidate.asked, source)
