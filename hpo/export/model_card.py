"""Model card of an exported model, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpo.export.format import CONFIG, ONNX, PREPROCESSING, WEIGHTS, Preprocessing
from hpo.report.chapters.blocks import Block, Chapter, Code, Table, Text
from hpo.report.chapters.verdict import interval_text
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results, TrialRow
from hpo.report.format import count_text, metric_text, value_text, values_text
from hpo.report.render.markdown import render_brief
from hpo.report.stats.evaluation_stats import compare_candidates

__all__ = ["ExportedModel", "model_card"]


@dataclass(frozen=True)
class ExportedModel:
    """Facts about an exported model that its trial does not have.

    Attributes:
        preprocessing: preprocessing of samples into inputs.
        environment: versions and hardware that it was trained with; empty if they were not recorded.
        plain: the model as an expression of plain torch, if it can be written so.
        onnx: number of samples that the ONNX file was compared on, and the largest difference; None without a file.
    """

    preprocessing: Preprocessing
    environment: Mapping[str, str] = field(default_factory=dict)
    plain: str | None = None
    onnx: tuple[int, float] | None = None


def model_card(
    results: Results, row: TrialRow, evaluations: Sequence[EvaluationResults], exported: ExportedModel
) -> str:
    """Return the card: the model, its scores, its use, its training and its limits."""
    assert row.config is not None
    inputs = exported.preprocessing
    task = "that reconstructs the samples" if inputs.reconstructs else f"for the {inputs.classes} classes"
    head = (
        f"A model ({row.config.model}) {task} of {_data(results)}: trial {row.number} of the study {results.name}, "
        "the weights of its best epoch."
    )
    tests = [line for each in evaluations for line in _test_lines(each, row)]
    chapters = [
        Chapter("score", "Score", [*_own_score(results, row), *map(Text, tests)]),
        Chapter("use", "Use", _use(results, row, exported)),
        Chapter("training", "Training", _training(row, exported)),
        Chapter("limits", "Limits", _limits(results, exported, tested=bool(tests))),
    ]
    return render_brief(f"{results.name}, trial {row.number}", head, chapters)


def _data(results: Results) -> str:
    name = results.definition.dataset.name
    return name.rsplit("/", 1)[-1] if name.endswith(".npz") else name


def _own_score(results: Results, row: TrialRow) -> list[Block]:
    scores = [
        f"{metric_text(objective.metric)} {values_text(objective.metric, value)}"
        for objective, value in zip(results.objectives, row.values or (), strict=False)
    ]
    text = f"This run: {', '.join(scores)}." if scores else "This run has no score."
    if results.best is not None and row.number == results.best.number and len(results.ranked) > 1:
        text += (
            f" It is the best of {count_text(len(results.ranked))} trials, so its score is likely to be better than the"
            " model's score on new data."
        )
    return [Text(text)]


def _test_lines(evaluation: EvaluationResults, row: TrialRow) -> list[str]:
    """Return the test score of the same configuration, trained again from fresh seeds."""
    metric = evaluation.test_metric
    for score in compare_candidates(evaluation).scores:
        if score.candidate.trial == row.number and score.test is not None and metric is not None:
            data = "" if evaluation.on_own_data else f" on {evaluation.dataset}"
            refit = ", refitted on training and validation data" if evaluation.refit else ""
            test = f"{metric_text(metric)}{data} {interval_text(metric, score.test)}"
            return [f"The same configuration from fresh seeds{refit}: {test}."]
    return []


def _use(results: Results, row: TrialRow, exported: ExportedModel) -> list[Block]:
    inputs = exported.preprocessing
    shape = ", ".join(map(str, inputs.shape))
    values = "bytes, 0 to 255," if inputs.values == "uint8" else "floats"
    per = "channel" if len(inputs.shape) > 1 else "feature"
    in_torch = "in plain torch" if exported.plain else "in torch, with torch-hpo"
    blocks: list[Block] = [
        *([] if inputs.reconstructs else [Code("hpo predict . picture.png", caption="in this folder")]),
        Text(
            f"Inputs are float32 of shape (any number, {shape}): subtract from a sample's {values} the shift of its "
            f"{per}, and divide by its scale, both in {PREPROCESSING}. Output i is {_output(row, inputs)}."
        ),
        Code(_in_torch(results, exported), "python", in_torch),
    ]
    if exported.onnx is None:
        return blocks
    samples, difference = exported.onnx
    lines = f'import onnxruntime\n\nsession = onnxruntime.InferenceSession("{ONNX}")\n'
    lines += f'({"outputs" if inputs.reconstructs else "logits"},) = session.run(["logits"], {{"x": x}})'
    checked = f"On {samples} samples its outputs differ from torch's by at most {difference:.2g}."
    return [*blocks, Code(lines, "python", "in onnxruntime, without torch"), Text(checked)]


def _output(row: TrialRow, inputs: Preprocessing) -> str:
    if not inputs.reconstructs:
        return "the logit of class i"
    assert row.config is not None
    logit = "the logit of " if row.config.loss == "binary_cross_entropy" else ""
    return f"{logit}number i of the input, flattened, as it is reconstructed"


def _in_torch(results: Results, exported: ExportedModel) -> str:
    load = f'model.load_state_dict(load_file("{WEIGHTS}"))\nmodel.eval()'
    if exported.plain:
        head = "from safetensors.torch import load_file\nfrom torch import nn\n\n"
        return f"{head}model = {exported.plain}\n{load}"
    inputs = exported.preprocessing
    head = "from pathlib import Path\n\nfrom hpo.study.input.config_file import read_config\n"
    head += "from hpo.training.models import build_model\nfrom safetensors.torch import load_file\n\n"
    built = f'build_model(read_config(Path("{CONFIG}")).config, {inputs.shape}, {inputs.classes})'
    own = (
        "# after the import of the module that registers the model\n"
        if any(results.definition.modules.values())
        else ""
    )
    return f"{own}{head}model = {built}\n{load}"


def _training(row: TrialRow, exported: ExportedModel) -> list[Block]:
    assert row.config is not None
    rows = [[name, value_text(value)] for name, value in row.config.effective().items()]
    environment = ", ".join(f"{name} {value}" for name, value in exported.environment.items())
    environment = environment or "versions that were not recorded"
    return [
        Code(f"hpo train --config {CONFIG}"),
        Table(["parameter", "value"], rows),
        Text(f"{count_text(row.parameter_count)} weights. Trained with {environment}."),
    ]


def _limits(results: Results, exported: ExportedModel, *, tested: bool) -> list[Block]:
    others = "assigns a class to any other sample as well, often with a high probability"
    if exported.preprocessing.reconstructs:
        others = "reconstructs others badly"
    lines = [f"The model only knows samples like those of {_data(results)}, and {others}."]
    if not tested:
        lines.append("It has not been tested: its score is of validation data. `hpo evaluate` tests it.")
    return [Text(line) for line in lines]
