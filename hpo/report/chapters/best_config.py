"""Chapter on the best configuration: its varied parameters beside the baseline's, and its file."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.errors import RequestError
from hpo.report.chapters.blocks import Block, Chapter, Code, Table, Text
from hpo.report.commands import format_command
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results, TrialRow
from hpo.report.export_config import export_config
from hpo.report.format import NONE, count_text, duration_text, sentence, value_text
from hpo.report.stats.choice import Choice
from hpo.report.stats.evaluation_stats import EvaluationStats

__all__ = ["best_config_chapter", "best_config_toml"]


def best_config_toml(results: Results, choice: Choice | None = None) -> tuple[str, str]:
    """Return the chosen configuration as TOML; or nothing, and the reason why there is none."""
    if not results.definition.configured:
        return "", "Its trials are no configurations of ours."
    try:
        return export_config(results, choice=choice), ""
    except RequestError as error:
        return "", str(error)


def best_config_chapter(
    results: Results,
    evaluations: Sequence[EvaluationResults] = (),
    stats: Sequence[EvaluationStats] = (),
    choice: Choice | None = None,
) -> Chapter | None:
    """Write the chapter; None without a complete trial, for the verdict has said so.

    Args:
        results: the study.
        evaluations: of it.
        stats: one per evaluation.
        choice: the trial that is exported; the best one if it is not given.
    """
    if results.best is None:
        return None
    row = results.best if choice is None else choice.row
    if not results.definition.configured:
        call = Code(export_config(results, format="python"), "python", folded="the same parameters for Optuna, exact")
        call_blocks = [] if results.definition.evaluation else [call]
        winner = _other_winner(results, row, evaluations, stats)
        return Chapter(
            "best",
            "Best parameters",
            [*_trial_facts(results, row), *winner, *_settings_table(results, row), *call_blocks],
        )
    config, reason = best_config_toml(results, choice)
    blocks: list[Block] = [
        *_trial_facts(results, row),
        *_rule_text(results, choice),
        *_other_winner(results, row, evaluations, stats),
        *_settings_table(results, row),
    ]
    if config:
        blocks.append(Code(config, "toml", folded="best_config.toml: every parameter, exact"))
    else:
        blocks.append(Text(sentence(reason)))
    return Chapter("best", "Best configuration", blocks)


def _rule_text(results: Results, choice: Choice | None) -> list[Block]:
    """Name the rule that chose the trial, and say how another one is named."""
    if choice is None or choice.rule == "best":
        return []
    command = format_command(results, "export", "--rule best", imports=False)
    return [
        Text(
            f"It was chosen by the rule {choice.rule}, for several trials share the best value: {choice.reason}. "
            f"`{command}` exports the first of them."
        )
    ]


def _trial_facts(results: Results, best: TrialRow) -> list[Block]:
    facts = [f"Trial {best.number}"]
    if best.value_from == "returned":
        facts.append("its value as the training loop returned it")
    elif best.best_epoch is not None:
        facts.append(f"epoch {best.best_epoch} of {len(best.epochs)}")
    facts += [f"{count_text(best.parameter_count)} weights"] if best.parameter_count else []
    took = "trained in" if results.definition.configured else "took"
    facts += [f"{took} {duration_text(best.seconds)}"] if best.seconds is not None else []
    return [Text(", ".join(facts) + ".")]


def _other_winner(
    results: Results, row: TrialRow, evaluations: Sequence[EvaluationResults], stats: Sequence[EvaluationStats]
) -> list[Block]:
    """Name the trial that an evaluation on the study's own terms ranks first, where it is another one."""
    for evaluation, each in zip(evaluations, stats, strict=True):
        first = each.best.candidate.trial if each.best is not None else None
        if evaluation.on_own_data and not evaluation.refit and first is not None and first != row.number:
            form = "" if results.definition.configured else " --format python"
            command = format_command(results, "export", f"--trial {first}{form}", imports=False)
            return [
                Text(
                    f"This is the choice among single runs. From fresh seeds, trial {first} is the best; export it "
                    f"with `{command}`."
                )
            ]
    return []


def _settings_table(results: Results, best: TrialRow) -> list[Block]:
    rival = results.baseline
    settings = results.settings(best)
    if not settings:
        return [Text("The study varies no parameter." if results.definition.configured else "It has no parameter.")]
    if rival is None or rival.number == best.number:
        return [Table(["parameter", "best"], [[name, value_text(value)] for name, value in settings.items()])]
    usual = results.settings(rival)
    rows = [
        [name, value_text(settings.get(name)), value_text(usual[name]) if name in usual else NONE]
        for name in dict.fromkeys([*settings, *usual])
    ]
    return [Table(["parameter", "best", "baseline"], rows)]
