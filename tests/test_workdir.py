"""A work directory takes a new run or goes on with its own, and refuses everything else."""

import json
import re
from pathlib import Path

import pytest

from jaxmnist.config import to_dict
from jaxmnist.errors import UsageError, WorkdirError
from jaxmnist.workdir import (
    Workdir,
    fresh_path,
    local_path,
    open_workdir,
    read_config,
    read_result,
)
from support import small_config


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "one"


class TestOpening:
    def test_a_new_directory_is_made_and_holds_the_configuration(self, path):
        place = open_workdir(path, small_config())
        assert to_dict(read_config(place)) == to_dict(small_config())
        assert [p.name for p in path.iterdir()] == ["config.json"]

    def test_its_files_lie_where_the_documents_say(self, path):
        place = Workdir(path)
        names = ["config.json", "metrics.jsonl", "checkpoints", "tensorboard", "result.json"]
        places = [place.config, place.metrics, place.checkpoints, place.tensorboard, place.result]
        assert places == [path / name for name in names]

    def test_an_empty_directory_will_do(self, path):
        path.mkdir(parents=True)
        assert open_workdir(path, small_config()).config.exists()

    def test_a_start_that_was_killed_early_is_no_obstacle(self, path):
        path.mkdir(parents=True)
        (path / ".config.json.123").write_text('{"se')
        assert open_workdir(path, small_config()).config.exists()

    def test_a_process_that_does_not_write_checks_all_the_same(self, path):
        open_workdir(path, small_config(), write=False)
        assert not path.exists()
        open_workdir(path, small_config())
        with pytest.raises(WorkdirError, match="seed: 0 there, 1 now"):
            open_workdir(path, small_config(seed=1), write=False)

    def test_the_same_run_goes_on_and_keys_that_compute_nothing_may_change(self, path):
        open_workdir(path, small_config())
        place = open_workdir(path, small_config(log__every=5, parallel__strategy="pmap"))
        assert read_config(place).log.every == 5

    @pytest.mark.parametrize(
        ("key", "value", "text"),
        [
            ("seed", 1, "seed: 0 there, 1 now"),
            ("batch_size", 64, "batch_size: 32 there, 64 now"),
            ("train.steps", 21, "train.steps: 20 there, 21 now"),
            ("model.name", "mlp", "model.name: 'cnn' there, 'mlp' now"),
            ("optimizer.learning_rate", 0.1, "optimizer.learning_rate: 0.05 there, 0.1 now"),
            ("schedule.name", "one_cycle", "schedule.name: 'constant' there, 'one_cycle' now"),
            ("dataset.validation", 60, "dataset.validation: 0 there, 60 now"),
            ("augment.shift", 2, "augment.shift: 0 there, 2 now"),
            ("parallel.deterministic", True, "parallel.deterministic: False there, True now"),
        ],
    )
    def test_a_run_of_another_configuration_is_refused(self, path, key, value, text):
        open_workdir(path, small_config())
        before = (path / "config.json").read_text()
        other = small_config(**{key: value})
        with pytest.raises(WorkdirError, match=re.escape(text)) as caught:
            open_workdir(path, other)
        assert f"{path} holds a run of another configuration" in str(caught.value)
        assert "--allow_config_change" in str(caught.value)
        assert (path / "config.json").read_text() == before
        open_workdir(path, other, allow_config_change=True)
        assert (path / "config.json").read_text() != before

    def test_all_differing_keys_are_listed(self, path):
        open_workdir(path, small_config())
        with pytest.raises(WorkdirError) as caught:
            open_workdir(path, small_config(seed=1, batch_size=64))
        assert "seed: 0 there" in str(caught.value) and "batch_size: 32 there" in str(caught.value)

    def test_a_directory_of_something_else_is_refused_and_left_alone(self, path):
        path.mkdir(parents=True)
        (path / "thesis.txt").write_text("dear")
        with pytest.raises(WorkdirError, match=r"is not empty and holds no config\.json.*choose"):
            open_workdir(path, small_config())
        assert [p.name for p in path.iterdir()] == ["thesis.txt"]

    def test_a_file_is_refused(self, path):
        path.parent.mkdir()
        path.write_text("")
        with pytest.raises(WorkdirError, match="is a file: choose another --workdir"):
            open_workdir(path, small_config())

    def test_a_place_that_cannot_be_written_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(
            WorkdirError, match="cannot be written: Not a directory; choose another"
        ):
            open_workdir(tmp_path / "file" / "run", small_config())


class TestReadingTheConfiguration:
    def test_a_directory_without_a_run_is_named(self, path):
        with pytest.raises(WorkdirError, match=r"is not the work directory of a run.*config\.json"):
            read_config(Workdir(path))

    @pytest.mark.parametrize("text", ['{"seed"', "", "[1]", '"text"', "\udcff"])
    def test_a_damaged_one_is_named(self, path, text):
        place = open_workdir(path, small_config())
        place.config.write_text(text, errors="surrogateescape")
        with pytest.raises(WorkdirError, match=re.escape(str(place.config))):
            read_config(place)

    def test_keys_that_this_version_does_not_know_are_named(self, path):
        place = open_workdir(path, small_config())
        place.config.write_text(json.dumps(to_dict(small_config()) | {"sede": 1}))
        with pytest.raises(WorkdirError, match="sede"):
            read_config(place)


class TestReadingTheResult:
    def test_it_is_what_was_written_and_nothing_where_it_was_cut_off(self, path):
        place = open_workdir(path, small_config())
        assert read_result(place) is None
        for text, value in (('{"test": 1}', {"test": 1}), ('{"test"', None), ("[1]", None)):
            place.result.write_text(text)
            assert read_result(place) == value


class TestFreshPaths:
    def test_each_is_named_after_the_time_and_the_data_and_is_new(self, tmp_path):
        names = []
        for _ in range(3):
            path = fresh_path("rows", under=tmp_path)
            assert not path.exists()
            path.mkdir()
            names.append(path.name)
        assert len(set(names)) == 3
        assert all(re.fullmatch(r"\d{8}-\d{6}-rows(-\d+)?", name) for name in names)


def test_a_path_is_taken_as_it_is_and_another_object_store_is_none():
    assert local_path("runs/a") == Path("runs/a")
    with pytest.raises(UsageError, match=r"--workdir=s3://b/run is not a place that jaxmnist can"):
        local_path("s3://b/run")


def test_in_a_bucket_people_are_told_its_address(path):
    place = open_workdir(path, small_config(), address="gs://digits/one")
    assert place.name_of(place.checkpoints / "20") == "gs://digits/one/checkpoints/20"
    assert place.resume_command(["jaxmnist", "train"]) == "jaxmnist train --workdir=gs://digits/one"
    assert place.resume_command([]) == "jaxmnist.train(config, workdir='gs://digits/one')"
    with pytest.raises(WorkdirError, match="directory gs://digits/one holds a run of another"):
        open_workdir(path, small_config(seed=1), address="gs://digits/one")
