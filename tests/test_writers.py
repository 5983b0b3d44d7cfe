"""Metrics reach the system when they are written, and are cut back to a step without a trace."""

import json

import pytest

from jaxmnist.errors import ConfigError
from jaxmnist.writers import (
    JsonlWriter,
    drop_after,
    read_records,
    write_atomically,
    writer_types,
)
from jaxmnist.zoo.tensorboard import TensorBoardWriter


def record(step, split="train", **values):
    return {"split": split, "step": step, "epoch": step / 7, "loss": 1 / step} | values


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture
def five(path):
    """A file with a record of each of five steps."""
    path.write_text("".join(json.dumps(record(step)) + "\n" for step in range(1, 6)))
    return path


class TestReading:
    def test_records_come_back_with_every_bit_of_their_numbers(self, five):
        assert read_records(five) == [record(step) for step in range(1, 6)]

    def test_a_file_that_is_not_there_holds_none(self, path):
        assert read_records(path) == []

    @pytest.mark.parametrize("cut", [1, 2, 20])
    def test_a_last_line_that_was_cut_off_is_left_out(self, five, cut):
        five.write_bytes(five.read_bytes()[:-cut])
        whole = 5 if cut == 1 else 4  # only the line's end is gone
        assert read_records(five) == [record(step) for step in range(1, whole + 1)]

    def test_a_cut_within_a_letter_is_left_out_too(self, five):
        five.write_bytes(five.read_bytes() + '{"split": "é'.encode()[:-1])
        assert read_records(five) == [record(step) for step in range(1, 6)]


class TestDroppingLaterSteps:
    @pytest.mark.parametrize("step", [0, 1, 3, 5, 9])
    def test_the_records_up_to_the_step_stay(self, five, step):
        drop_after(five, step)
        assert read_records(five) == [record(s) for s in range(1, min(step, 5) + 1)]

    def test_what_is_kept_is_whole_lines_that_can_be_appended_to(self, five):
        five.write_bytes(five.read_bytes()[:-1])  # a kill before the line's end was written
        drop_after(five, 5)
        writer = JsonlWriter(five)
        writer.write(record(6))
        writer.close()
        assert read_records(five) == [record(s) for s in range(1, 7)]

    def test_a_missing_file_becomes_an_empty_one(self, path):
        drop_after(path, 3)
        assert path.read_text() == ""


class TestWritingAtomically:
    def test_the_file_has_the_new_text_and_nothing_else_is_left(self, tmp_path):
        path = tmp_path / "new" / "file.json"
        write_atomically(path, "old")
        write_atomically(path, "é")
        assert path.read_text(encoding="utf-8") == "é"
        assert list(path.parent.iterdir()) == [path]

    def test_a_fault_while_writing_leaves_the_old_text(self, five, monkeypatch):
        def fail(self, target):
            raise OSError("no")

        before = five.read_text()
        monkeypatch.setattr("pathlib.Path.replace", fail)
        with pytest.raises(OSError, match="no"):
            write_atomically(five, "new")
        assert five.read_text() == before

    def test_bytes_are_written_as_they_are(self, tmp_path):
        write_atomically(tmp_path / "file", b"\xff\n")
        assert (tmp_path / "file").read_bytes() == b"\xff\n"


class TestJsonl:
    def test_lines_are_there_for_others_once_written_and_are_appended(self, five):
        writer = JsonlWriter(five)
        writer.write(record(6, accuracy=0.1))
        assert read_records(five)[-1] == record(6, accuracy=0.1)
        assert len(read_records(five)) == 6
        writer.close()


class TestNames:
    def test_names_and_dotted_paths_are_found_in_their_order(self):
        mine = "jaxmnist.writers:JsonlWriter"
        assert writer_types(f"{mine}, tensorboard") == [JsonlWriter, TensorBoardWriter]
        assert writer_types(None) == []

    def test_a_name_that_is_unknown_or_cannot_be_imported_is_told(self):
        with pytest.raises(
            ConfigError, match=r"'wandb' is not one of tensorboard: .*module:Class'"
        ):
            writer_types("wandb")
        with pytest.raises(
            ConfigError, match=r"log.writers='math:pi' is 3.14.*must be a class of w"
        ):
            writer_types("math:pi")
        with pytest.raises(ConfigError, match=r"log.writers='no.such:Writer' cannot be imported"):
            writer_types("tensorboard,no.such:Writer")
