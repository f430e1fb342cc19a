"""Notes on stacks of own models: written by workers, read with care, and shown."""

import pytest

from hpo.study.operations.stack_notes import StackNote, describe_stacks, read_stack_notes, write_stack_note


class Storage:
    """Attributes of one study."""

    def __init__(self) -> None:
        self.attrs: dict[str, object] = {"other": 1}

    def set_study_user_attr(self, _: int, key: str, value: object) -> None:
        self.attrs[key] = value

    def get_study_user_attrs(self, _: int) -> dict[str, object]:
        return self.attrs


class Study:
    """Study with such a storage."""

    def __init__(self) -> None:
        self.storage, self.id, self.name = Storage(), 1, "study"


def test_notes_are_read_as_they_were_written():
    study = Study()
    notes = [StackNote.of("net", {"width": 16}, 8, None), StackNote.of("net", {"width": 512}, 1, "too slow")]
    for note in notes:
        assert write_stack_note(study, note, 0)
    assert not write_stack_note(study, notes[0], 64)
    assert read_stack_notes(study) == notes
    line = "stacked (width 16), up to 8 at a time; one at a time (width 512): too slow"
    assert describe_stacks(notes) == {"net": line}


def test_values_that_several_lines_share_are_named_in_their_combinations():
    done, late = [("relu", 16), ("relu", 32)], [("relu", 8), ("tanh", 16)]
    notes = [StackNote.of("net", {"act": act, "dim": dim}, 2, None) for act, dim in done]
    notes += [StackNote.of("net", {"act": act, "dim": dim}, 1, "too slow") for act, dim in late]
    line = (
        "stacked (act relu; dim 16, 32), up to 2 at a time; one at a time (act relu, dim 8; act tanh, dim 16): too slow"
    )
    assert describe_stacks(notes) == {"net": line}
    mixed = [*notes, StackNote.of("net", {"act": "tanh", "dim": 32}, 2, None)]
    assert describe_stacks(mixed)["net"].startswith(
        "stacked (act relu, dim 16; act relu, dim 32; act tanh, dim 32), up to 2 at a time; "
    )


def test_a_value_that_only_some_notes_have_is_named_there():
    notes = [StackNote.of("net", {}, 8, None), StackNote.of("net", {"optimizer": "lbfgs"}, 1, "several times")]
    line = "stacked, up to 8 at a time; one at a time (optimizer lbfgs): several times"
    assert describe_stacks(notes) == {"net": line}


NOTE = {"model": "net", "parameters": {}, "at_once": 8, "why": None}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "it must be a table, but it is None"),
        (3, "it must be a table, but it is 3"),
        ([], "it must be a table"),
        ({"model": "net"}, "parameters: Field required"),
        (NOTE | {"at_once": "8"}, "at_once: Input should be a valid integer, but it is '8'"),
        (NOTE | {"parameters": {"w": float("inf")}}, "but it is inf"),
        (NOTE | {"parameters": {"w": float("nan")}}, "but it is nan"),
        (NOTE | {"parameters": {"a\nb": 1}}, "parameters"),
        (NOTE | {"model": "a\nb"}, "model"),
        (NOTE | {"why": "a\x1b[2J"}, "why"),
    ],
)
def test_a_damaged_note_is_left_out_with_one_line(value, why, caplog):
    study = Study()
    study.storage.attrs[f"hpo:stack:{why}"] = value
    study.name = why
    assert read_stack_notes(study) == []
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert "is damaged" in record.getMessage()
    assert why in record.getMessage().partition("is damaged: ")[2]


def test_texts_of_a_note_are_kept_on_one_line():
    note = StackNote.of("net", {"text": "a\nb", "share": float("inf")}, 1, "first\nsecond")
    study = Study()
    assert write_stack_note(study, note, 0)
    assert read_stack_notes(study) == [note]
