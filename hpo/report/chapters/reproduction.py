"""Chapter on reproduction: the study as a file, and the commands."""

from __future__ import annotations

from typing import Any

from hpo.report.chapters.blocks import Block, Chapter, Code, Text
from hpo.report.commands import format_command, format_import_options
from hpo.report.data.results import Results
from hpo.report.format import one_line
from hpo.study.definition import ComponentSpec
from hpo.study.input.resampling_keys import spell_resampling
from hpo.utils.paths import ROOM, fit_name

__all__ = ["format_study_file", "reproduction_chapter", "study_table"]


def reproduction_chapter(results: Results) -> Chapter:
    """Write the chapter. The study's file is written beside the report as `study.toml`."""
    best = results.best is not None
    if not results.definition.configured:
        return Chapter("reproduction", "Reproduction", _list_commands(results))
    steps = [
        (
            "Run the same study again, from the file beside this report",
            _launch_command(results),
            results.definition.companion_of is None,
        ),
        (
            "Resume this study",
            format_command(results, "launch"),
            bool(results.remaining_trials),
        ),
        (
            "Retrain the best from fresh seeds, beside the baseline, and test it",
            format_command(results, "evaluate"),
            best,
        ),
        ("Write this report", format_command(results, "report"), True),
        ("Save the best configuration", f"{format_command(results, 'export')} > best_config.toml", best),
        ("Train it once", f"hpo train --config best_config.toml{format_import_options(results)} --out best", best),
        ("Browse the study", format_command(results, "dashboard", imports=False), True),
    ]
    blocks: list[Block] = [Code(line, caption=what) for what, line, meant in steps if meant]
    text = "The commands can be copied as they stand"
    text += ", with the password in place of ***." if "***" in results.storage else "."
    data = results.definition.dataset
    same = " The data files are checked by their SHA-256." if data.sha256 else ""
    text_of_file = format_study_file(results)
    file = [Code(text_of_file, "toml", folded="study.toml: the study as it was launched")] if text_of_file else []
    return Chapter("reproduction", "Reproduction", [Text(text + same), *blocks, *file])


def _list_commands(results: Results) -> list[Block]:
    """List the commands on a study of an objective function, or of another tool."""
    best = results.best is not None
    steps = [
        ("Go on with this study", format_command(results, "launch", "--trials N"), results.definition.function),
        (
            "Call the best again with fresh seeds",
            format_command(results, "evaluate"),
            best and results.takes_seed and not results.definition.evaluation,
        ),
        ("Print the best parameters", format_command(results, "export", "--format python"), best),
        ("Write this report", format_command(results, "report"), True),
        ("Browse the study", format_command(results, "dashboard", imports=False), True),
    ]
    return [Code(line, caption=what) for what, line, meant in steps if meant]


def _launch_command(results: Results) -> str:
    return f"hpo launch ./study.toml{format_import_options(results)}"


def format_study_file(results: Results) -> str:
    """Write a file that defines the same study with the same budget; of the parts of an evaluation, which have none,
    nothing.
    """
    if results.definition.companion_of is not None or not results.definition.configured:
        return ""
    import tomli_w

    head = f"# the study {one_line(results.name)}\n"
    return head + tomli_w.dumps(study_table(results))


def study_table(results: Results) -> dict[str, Any]:
    """Return the keys of a study file that defines the same study with the same budget.

    `hpo.study.input.study_file.parse_definition` reads them.
    """
    definition, budget, spell = results.definition, results.budget, results.space.spell
    table = {
        "name": fit_name(results.name, "", ROOM),  # a name of earlier versions may be longer than a new one
        "dataset": definition.dataset.spelled,
        "objective": [objective.model_dump() for objective in definition.objectives],
        "trials": budget.trials,
        "timeout": budget.timeout,
        "trial_timeout": budget.trial_timeout,
        "target": budget.target,
        "until": budget.until,
        "sampler": _component_table(definition.sampler),
        "pruner": _component_table(definition.pruner),
        "seed": definition.seed,
        "parameters": spell(definition.parameters),
        "constraints": [each.text for each in definition.constraints] or None,
        "baseline": None if definition.baseline is None else spell(definition.baseline),
        "warm_start": [spell(each) for each in definition.warm_start] or None,
        "report": definition.report.model_dump(mode="json", exclude_defaults=True) if definition.report else None,
        "record_steps": definition.record_steps or None,
        "metrics": list(definition.recorded) or None,
        **spell_resampling(definition),
    }
    return {key: value for key, value in table.items() if value is not None}


def _component_table(named: ComponentSpec) -> dict[str, Any]:
    return {"name": named.name, **named.options}
