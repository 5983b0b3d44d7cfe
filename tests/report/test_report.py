"""A report shows a run or several in one file, and of a damaged one what is left and what not."""

import hashlib
import html
import json
import os
import re
import shutil
import struct
import types
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import jaxmnist
from jaxmnist.checkpoint import _sha256, steps_in
from jaxmnist.cli.report import report as command
from jaxmnist.errors import WorkdirError
from jaxmnist.report import report
from jaxmnist.workdir import Workdir
from support import Tiny, small_config, small_data

EVIL = """<script>alert("1")</script><img src=x onerror='alert(2)'>&amp;"'>"""
VOID = {"meta", "link", "img", "br", "wbr", "path", "use"}


class Page(HTMLParser):
    """A report, read: it must be well nested; tags, text and attributes are kept."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self.attributes, self.open = [], [], [], []
        self.source = Path(path).read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open, f"{self.open} are not closed"
        self.text = " ".join("".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.texts.append("" if tag == "wbr" else " ")
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.texts.append(data)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory of IDX files, so that a report can read what the run read."""
    made, directory = small_data(), tmp_path_factory.mktemp("data")
    for name, split in (("train", made.train), ("t10k", made.test)):
        for kind, array in (("images", split.images[..., 0]), ("labels", split.labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            rank = 3 if kind == "images" else 1
            (directory / f"{name}-{kind}-idx{rank}-ubyte").write_bytes(
                head + array.astype(np.uint8).tobytes()
            )
    return directory


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """Makes a run of a few steps; not to be changed."""

    def run(name, **overrides):
        path = tmp_path_factory.mktemp("runs") / name
        settings = {"dataset.dir": data, "parallel.devices": 2, "model.conv": "xla"}
        config = small_config(**settings, **overrides)
        jaxmnist.train(config, path, quiet=True)
        return path

    return run


@pytest.fixture(scope="module")
def finished(run):
    return run("first")


@pytest.fixture
def whole(finished, tmp_path):
    """A copy of the finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def workdir(whole):
    """Such a copy without checkpoints: nothing is computed for its report."""
    shutil.rmtree(whole / "checkpoints")
    return whole


@pytest.fixture
def bare(workdir):
    """Such a copy without metrics: nothing is drawn but its confusion matrix."""
    (workdir / "metrics.jsonl").unlink()
    return workdir


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory):
    return Page(report(finished, out=tmp_path_factory.mktemp("page") / "report.html"))


def edit(path, **changes):
    """Changes keys, dotted with two underscores, of a JSON file."""
    values = json.loads(path.read_text())
    for name, value in changes.items():
        *groups, last = name.split("__")
        inner = values
        for group in groups:
            inner = inner[group]
        inner[last] = value
    path.write_text(json.dumps(values))


class TestOneRun:
    def test_it_lies_in_the_work_directory_and_can_be_written_again(self, workdir):
        first = report(workdir)
        assert first == workdir / "report.html"
        assert jaxmnist.report(str(workdir)) == first

    def test_it_stands_alone(self, page):
        assert "script" not in page.tags
        for tag, name, value in page.attributes:
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("data:", "#")), f"<{tag} {name}={value}>"
        outside = re.sub(r'xmlns(:xlink)?="http[^"]*"', "", page.source)
        assert not re.search(r"(?i)https?:|@import|url\((?!#)", outside)
        policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        assert ("meta", "content", policy) in page.attributes

    def test_every_part_is_there(self, page, finished):
        result = json.loads((finished / "result.json").read_text())
        parts = ("Loss", "Accuracy", "Learning rate", "Images per second", "Step time", "Result")
        parts += ("Configuration", "Confusion matrix", "Accuracy by label", "Calibration")
        parts += ("The most confident mistakes", "First layer", "Devices", "Memory")
        for part in (*parts, "Reproducibility"):
            assert part in page.text
        assert page.tags.count("svg") == 7
        assert "Not everything is here" not in page.text
        assert f"test accuracy {result['test']['accuracy']:.2%}" in page.text
        assert f"training {result['train']['seconds']:,.1f} s" in page.text
        wrong = 131 - int(np.trace(result["test"]["confusion"]))
        pictures = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
        assert len(pictures) == min(wrong, 24) + 32
        assert all(value.startswith("data:image/png;base64,") for value in pictures)

    def test_it_says_how_to_make_the_run_again(self, page, finished, data):
        result = json.loads((finished / "result.json").read_text())
        place = Workdir(finished)
        for package, version in result["versions"].items():
            assert f"{package} {version}" in page.text
        digest = hashlib.sha256(place.config.read_bytes()).hexdigest()
        assert f"config.json, SHA-256 {digest}" in page.text
        assert f"parameters, SHA-256 {result['params']['sha256']}" in page.text
        for file in data.iterdir():
            assert f"{file.name}={hashlib.sha256(file.read_bytes()).hexdigest()}" in page.text
        assert f"--config.dataset.dir={data}" in page.text
        assert "--config.optimizer.kwargs.momentum=0.9" in page.text

    def test_keys_that_differ_from_the_default_are_listed_with_it(self, page):
        changed, _, rest = page.text.partition("Changed from the default: value default")[
            2
        ].partition("keys value default")
        assert "batch_size 32 256" in changed
        assert "optimizer.name 'sgd' 'adam'" in changed
        assert "checkpoint.keep" not in changed and "checkpoint.keep 3 3" in rest

    def test_the_command_that_was_stored_is_shown_as_a_shell_takes_it(self, bare):
        edit(bare / "result.json", command="jaxmnist train '--config.dataset.dir=a b'")
        stored = "exact command jaxmnist train '--config.dataset.dir=a b'"
        assert stored in Page(report(bare)).text

    def test_a_checkpoint_of_other_parameters_than_the_result_is_named(self, whole):
        edit(whole / "config.json", model__name="own:Net")
        edit(whole / "result.json", params__sha256="f" * 64)
        assert "other parameters, " in Page(report(whole)).text

    def test_the_same_run_gives_the_same_file(self, workdir, monkeypatch):
        monkeypatch.setattr("time.strftime", lambda form: "now")
        first = report(workdir).read_bytes()
        assert report(workdir).read_bytes() == first

    def test_the_command_line_takes_what_follows_compare(self, workdir, finished, capsys):
        flags = types.SimpleNamespace(workdir=str(workdir), compare=None, out=None)
        command(flags, str(finished))
        assert capsys.readouterr().out.strip() == str(workdir / "report.html")
        assert "run beside first" in Page(workdir / "report.html").text


class TestComparison:
    def test_curves_results_and_differing_keys_lie_side_by_side(self, run, finished, tmp_path):
        others = [run("slow", optimizer__learning_rate=0.01), run("short", train__steps=12)]
        page = Page(report(finished, compare=others, out=tmp_path / "all.html"))
        assert "first beside slow, short" in page.text
        differing = page.text.partition("What differs between the configurations")[2]
        differing, *_ = differing.partition("All ")
        assert "optimizer.learning_rate 0.05 0.01 0.05 0.004" in differing
        assert "train.steps 20 20 12 None" in differing
        assert "batch_size" not in differing
        steps = "steps 20 20 12"
        assert steps in page.text
        loss = page.source.partition("<h3>Loss</h3>")[2].partition("</svg>")[0]
        assert all(f"var(--c{color})" in loss for color in range(3))
        assert "var(--c3)" not in loss

    def test_runs_of_one_name_are_told_apart_by_their_paths(self, finished, tmp_path):
        copy = shutil.copytree(finished, tmp_path / "other" / finished.name)
        page = Page(report(finished, compare=[copy], out=tmp_path / "page.html"))
        assert f"{finished} beside {copy}" in page.text


class TestWhatIsMissing:
    def page(self, workdir):
        """The report; whatever is wrong, it can be read and nothing in it runs."""
        page = Page(report(workdir))
        assert "Not everything is here." in page.text
        assert "script" not in page.tags
        return page

    @pytest.mark.parametrize(
        ("file", "shown"),
        [
            ("config.json", "test accuracy"),
            ("result.json", "Calibration"),
            ("metrics.jsonl", "test accuracy"),
            ("checkpoints", "Confusion matrix"),
        ],
    )
    def test_a_missing_file_is_named_and_the_rest_is_shown(self, whole, file, shown):
        path = whole / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        text = self.page(whole).text
        gone = f"{file} cannot be read: No such file or directory"
        assert (gone if path.suffix else "there is no checkpoint that can be used") in text
        assert shown in text

    @pytest.mark.parametrize("content", ["", "{", "[1]", "null", "\x00", '{"a":' * 9999, "\ud800"])
    def test_damaged_files_are_named(self, bare, content):
        files = ("config.json", "result.json", "metrics.jsonl")
        for file in files:
            (bare / file).write_bytes(content.encode("utf-8", "surrogatepass"))
        text = self.page(bare).text
        assert all(file in text for file in files)

    def test_a_directory_or_a_pipe_in_place_of_a_file_is_not_waited_for(self, workdir):
        for name in ("metrics.jsonl", "result.json"):
            (workdir / name).unlink()
        os.mkfifo(workdir / "metrics.jsonl")
        (workdir / "result.json").mkdir()
        text = self.page(workdir).text
        assert "metrics.jsonl cannot be read: it is not a regular file" in text
        assert "result.json cannot be read: it is not a regular file" in text

    def test_a_line_that_was_cut_off_is_left_out(self, workdir):
        path = workdir / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines)[:-20])
        said = f"1 of {len(lines)} lines of metrics.jsonl cannot be used: the first of them is line"
        assert f"{said} {len(lines)}; the last one may have been cut off" in self.page(workdir).text

    def test_values_that_are_not_finite_or_huge_are_left_out_of_the_curves(self, workdir):
        lines = [
            {"split": "train", "step": 21, "epoch": 1.4, "loss": float("nan"), "accuracy": 0.5},
            {"split": "train", "step": 22, "epoch": 1.5, "loss": 10**400, "accuracy": EVIL},
            {"split": "train", "step": 23, "epoch": 1.6, "loss": -1e308, "accuracy": [1]},
            {"split": "test", "step": 1e308, "epoch": 2, "loss": 1, "accuracy": 1},
            {"split": [EVIL], "step": 24, "epoch": 2, "loss": 1, "accuracy": 1},
            {"split": "train", "step": 25, "epoch": 1.7, "loss": 0, "accuracy": 7.5},
            {"split": "train", "step": 25, "epoch": -3, "loss": 1e-40, "accuracy": -1e29},
            7,
        ]
        with (workdir / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        page = self.page(workdir)
        assert "no finite loss in 3 lines, first at step 21" in page.text
        assert "no finite accuracy in 2 lines, first at step 22" in page.text
        assert "3 of" in page.text
        assert "<h3>Loss</h3><svg" in page.source

    @pytest.mark.parametrize("name", ["step", "time", "params_sha256", "size_bytes", "notes"])
    def test_a_checkpoint_that_is_sound_but_says_nonsense_is_not_used(self, whole, name):
        file = max(
            (whole / "checkpoints").glob("*/manifest.json"), key=lambda p: int(p.parent.name)
        )
        manifest = json.loads(file.read_text())
        manifest["info"][name] = [EVIL]
        del manifest["sha256"]
        file.write_text(json.dumps(manifest | {"sha256": _sha256(manifest)}))
        text = self.page(whole).text
        assert f"checkpoints cannot be read: the newest has no sensible {name}." in text
        assert "Confusion matrix" in text

    def test_a_directory_that_is_no_checkpoint_is_passed_over(self, whole):
        (whole / "checkpoints" / "²").mkdir()
        assert "The most confident mistakes" in Page(report(whole)).text

    def test_data_that_are_a_pipe_are_not_waited_for(self, whole, data, tmp_path):
        other = Path(shutil.copytree(data, tmp_path / "other"))
        (other / "train-images-idx3-ubyte").unlink()
        os.mkfifo(other / "train-images-idx3-ubyte")
        edit(whole / "config.json", dataset__dir=str(other))
        assert "train-images-idx3-ubyte: cannot be read: it is a pipe" in self.page(whole).text

    def test_of_three_runs_one_is_broken_and_the_others_are_shown(self, whole, finished, tmp_path):
        broken = tmp_path / "broken"
        broken.mkdir()
        (broken / "metrics.jsonl").write_bytes(os.urandom(999))
        (broken / "result.json").write_text("[]")
        page = Page(report(whole, compare=[broken, finished], out=tmp_path / "page.html"))
        assert "broken: config.json cannot be read: No such file or directory." in page.text
        assert "broken: result.json holds no JSON object that can be read: it is []." in page.text
        assert re.search(r"test accuracy (\d+\.\d\d%) – \1", page.text)
        assert page.tags.count("svg") == 7

    def test_no_code_that_a_configuration_names_is_imported(self, whole, tmp_path, monkeypatch):
        (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
        monkeypatch.syspath_prepend(tmp_path)
        for key in ("model", "dataset", "optimizer"):
            edit(whole / "config.json", **{f"{key}__name": "trap:Net"})
        text = self.page(whole).text
        assert "model.name='trap:Net'" in text
        assert "is code of your own, and a report imports none" in text
        assert "Confusion matrix" in text

    @pytest.mark.parametrize("key", ["augment__custom", "loss__name", "schedule__name"])
    def test_nor_is_a_function_that_it_names(self, whole, tmp_path, monkeypatch, key):
        (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
        monkeypatch.syspath_prepend(tmp_path)
        edit(whole / "config.json", **{key: "trap:x"})
        named = f"{key.replace('__', '.')}='trap:x' is code of your own, and a report imports none"
        assert named in self.page(whole).text

    def test_a_run_with_parts_in_python_is_not_shown_with_those_of_the_configuration(
        self, tmp_path
    ):
        config = small_config(parallel__devices=1)
        jaxmnist.train(config, tmp_path, dataset=small_data(), model=Tiny(), quiet=True)
        text = self.page(tmp_path).text
        assert "No calibration, mistakes as images and filters:" in text

    def test_a_model_that_does_not_reach_the_result_is_not_shown(self, whole):
        edit(whole / "result.json", test__accuracy=0.99)
        text = self.page(whole).text
        assert "where result.json says 99.00%; was the run given" in text
        assert "The most confident mistakes" not in text

    def test_other_data_than_the_run_had_are_not_shown(self, whole, data, tmp_path):
        other = Path(shutil.copytree(data, tmp_path / "other"))
        labels = other / "t10k-labels-idx1-ubyte"
        *others, last = labels.read_bytes()
        labels.write_bytes(bytes([*others, 9 - last]))
        edit(whole / "config.json", dataset__dir=str(other))
        assert "the run had other data than its configuration names" in self.page(whole).text

    def test_what_is_no_run_is_refused(self, tmp_path, finished):
        with pytest.raises(WorkdirError, match=r"empty is not the work directory of a run.*--work"):
            report(tmp_path / "empty")
        with pytest.raises(WorkdirError, match="nothing is not the work directory"):
            report(finished, compare=[tmp_path / "nothing"], out=tmp_path / "page.html")

    def test_a_place_that_cannot_be_written_is_named(self, finished, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(WorkdirError, match=r"cannot be written to .*choose another --out"):
            report(finished, out=tmp_path / "file" / "report.html")


class TestHostileContent:
    def test_markup_is_shown_as_it_is_written(self, workdir, tmp_path):
        hostile = workdir.rename(tmp_path / "<b onclick=alert(3)>$x_1$&")
        edit(hostile / "config.json", dataset__name=EVIL, seed=EVIL)
        edit(hostile / "config.json", **{EVIL: {EVIL: EVIL}})
        edit(hostile / "result.json", versions={EVIL: EVIL}, devices={EVIL: [EVIL]}, command=[EVIL])
        edit(hostile / "result.json", memory=EVIL, params={"sha256": EVIL, "count": EVIL})
        page = Page(report(hostile, compare=[hostile / "."]))
        assert not {"script", "b"} & {*page.tags}
        assert not any(name.startswith("on") for _, name, _ in page.attributes)
        assert all(value.startswith("data:") for _, name, value in page.attributes if name == "src")
        assert "<b onclick=alert(3)>$x_1$&" in page.text
        assert html.escape(EVIL)[:40].replace("&quot;", "&#34;") in page.source

    def test_what_cannot_be_seen_or_turns_the_text_around_is_shown_as_an_escape(self, bare):
        hidden = "".join(map(chr, [*range(9), 0x1B, 0x7F, 0x9B, 0x200E, 0x202E, 0x2066, 0x2028]))
        renamed = bare.rename(bare.with_name(f"a\u202egpj.exe{hidden[1:]}"))
        edit(renamed / "config.json", dataset__dir=hidden)
        edit(renamed / "result.json", command=hidden, versions={hidden: hidden})
        page = Page(report(renamed))
        assert not {*hidden} & {*page.source}
        assert "a\\u202egpj.exe" in page.text and "command \\x00\\x01" in page.text

    @pytest.mark.parametrize("text", ["x:" * 10**6, "🙂" * 10**6])
    def test_nothing_is_shown_at_a_length_without_bound(self, bare, text):
        for key in ("model", "dataset", "loss"):
            edit(bare / "config.json", **{f"{key}__name": text})
        edit(bare / "config.json", **{text: 1})
        edit(bare / "result.json", versions={text: text}, devices={text: 1})
        assert len(Page(report(bare)).source) < 300_000

    @pytest.mark.parametrize("matrix", [[], [[1, 2]], [[-1]], [[1e9]], [[EVIL]], EVIL, [[0]], {}])
    def test_a_confusion_matrix_that_is_none_is_not_drawn(self, bare, matrix):
        edit(bare / "result.json", test__confusion=matrix)
        assert "result.json has none that can be used" in Page(report(bare)).text

    def test_many_classes_are_not_drawn_as_a_matrix(self, bare):
        edit(bare / "result.json", test__confusion=(np.eye(21, dtype=int) + 1).tolist())
        text = Page(report(bare)).text
        assert "21 classes are too many to show as a matrix" in text
        assert "Accuracy by label" in text

    @pytest.mark.parametrize("value", [EVIL, None, [], {}, 1e308, float("nan"), True, "x" * 10**6])
    def test_any_value_in_place_of_another_renders(self, bare, value):
        result = json.loads((bare / "result.json").read_text())
        for group in result:
            changes = {group: value if value != {} else dict.fromkeys(result[group], value)}
            edit(bare / "result.json", **changes)
        config = json.loads((bare / "config.json").read_text())
        edit(bare / "config.json", **dict.fromkeys(config, value))
        assert Page(report(bare)).source.count("x" * 1000) == 0

    def test_names_that_no_encoding_holds_render(self, bare, tmp_path):
        odd = bare.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
        (odd / "checkpoints" / "²").mkdir(parents=True)
        edit(odd / "result.json", versions={"\ud800": "\udfff"})
        assert "Reproducibility" in Page(report(odd)).text


def test_the_runs_of_these_tests_have_checkpoints(finished):
    assert steps_in(finished / "checkpoints") == [8, 16, 20]
