"""Each bad input gives a sentence or a list, exit code 2 or 1, no trace, and changes no file."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxmnist.cli.main as command_line

from .conftest import CLASSES, digest, idx

# Faults of the command line and of the first stage: JAX is not even imported.
FIRST_STAGE = {
    "unknown command": ("trian", 2, r"no command 'trian'; did you mean 'train'\?; the commands"),
    "flag before the command": ("--json info", 2, r"no command '--json'.*; the commands are"),
    "unknown flag": ("train --nope", 2, r"flag 'nope'; see `jaxmnist train --help`"),
    "flag of another command": ("train --split=test", 2, r"flag 'split'"),
    "mistyped flag": ("eval --workdri=x", 2, r"flag 'workdri'.*workdir.*eval --help"),
    "config on eval": ("eval --config.seed=1 --workdir=x", 2, r"flag 'config.seed'"),
    "stray argument": ("train seed", 2, r"train takes no argument 'seed'.*two dashes"),
    "flag without value": ("train --workdir", 2, r"Missing value for flag --workdir"),
    "empty flag": ("train --workdir=", 2, r"--workdir= needs a value"),
    "step not a number": ("eval --workdir=x --step=last", 2, r"flag --step=last: invalid"),
    "negative step": ("eval --workdir=x --step=-1", 2, r"--step=-1.*non-negative"),
    "unknown split": ("eval --workdir=x --split=tset", 2, r"--split=tset.*test\|train\|valid"),
    "flag not true or false": ("train --quiet=maybe", 2, r"flag --quiet=maybe"),
    "eval without workdir": ("eval", 2, r"jaxmnist eval needs --workdir"),
    "checkpoints without workdir": ("checkpoints", 2, r"jaxmnist checkpoints needs --workdir"),
    "predict without workdir": ("predict 7.png", 2, r"jaxmnist predict needs --workdir"),
    "predict without files": ("predict --workdir=x", 2, r"needs image files, such as digit.png"),
    "steps to trace": ("train --profile_steps=15:10", 2, r"steps=15:10: give the first and the"),
    "one step to trace": ("train --profile_steps=3", 2, r"such as 10:15; steps are counted from 1"),
    "step zero to trace": ("train --profile_steps=0:3", 2, r"--profile_steps=0:3: give the first"),
    "two models": ("predict --workdir=x --model=y 7.png", 2, r"--model of .*, one of the two"),
    "step of a file": ("predict --model=y --step=3 7.png", 2, r"--step chooses a checkpoint of"),
    "export without workdir": ("export --out=x", 2, r"jaxmnist export needs --workdir"),
    "unknown format": ("export --workdir=x --format=onnx", 2, r"--format=onnx.*stablehlo\|safet"),
    "unknown config": ("train --config=sede", 2, r"'sede'; did you mean 'seed'\?.*debug, default"),
    "missing config file": ("train --config=nope.py", 2, r"'nope.py'.*shipped: best"),
    "config that raises": ("train --config=raises.py", 2, r"raises.py, line 3: ZeroDivisionError"),
    "config of no python": ("train --config=syntax.py", 2, r"syntax.py.*SyntaxError"),
    "config without function": ("train --config=none.py", 2, r"KeyError: .*must define get_config"),
    "config with unknown key": ("train --config=key.py", 2, r"key.py.*'sead'; did you mean 'seed'"),
    "unknown key": ("train --config.epochs=3", 2, r"key 'epochs'; did you mean 'train.epochs'"),
    "wrong type": ("train --config.batch_size=many", 2, r"batch_size = 'many' must be an integer"),
    "out of range": ("train --config.seed=-1", 2, r"seed = -1 must be an integer in 0\.\."),
    "two lengths": (
        "train --config.train.steps=9 --config.train.epochs=2",
        2,
        r"train.epochs = 2 and train.steps = 9 are set .*; set exactly one of train.epochs",
    ),
    "unknown strategy": (
        "train --config.parallel.strategy=ddp",
        2,
        r"parallel.strategy = 'ddp' must be one of 'shard_map', 'pmap', 'jit'",
    ),
    "deterministic under pmap": (
        "train --config.parallel.deterministic --config.parallel.strategy=pmap",
        2,
        r"parallel.deterministic needs parallel.strategy = 'shard_map', not 'pmap'",
    ),
    "winograd under jit": (
        "train --config.model.conv=winograd --config.parallel.strategy=jit",
        2,
        r"'winograd' is refused under parallel.strategy = 'jit': .* use 'shard_map'",
    ),
    "no duration": ("train --config.log.every=often", 2, r"log.every = 'often' must be a durat"),
    "several faults": (
        "config --config.sead=1 --config.batch_size=0 --config.model.dtype=f8",
        2,
        r"3 faults:\n  - .*'sead'(.|\n)*  - batch_size = 0(.|\n)*  - model.dtype = 'f8'",
    ),
}

# Faults that show once devices, names and files are looked at.
SECOND_STAGE = {
    "deterministic and indivisible": (
        ["parallel.deterministic", "batch_size=100"],
        2,
        r"batch_size=100 .*nearest valid values are 96 or 104",
    ),
    "accumulated and indivisible": (
        ["train.accumulate=3"],
        2,
        r"batch_size=256 .*train.accumulate=3.* values are 240 or 264",
    ),
    "batch indivisible": (["batch_size=100"], 2, r"batch_size=100 .* 8 device.* are 96 or 104"),
    "too many devices": (["parallel.devices=9"], 2, r"parallel.devices=9, but there are 8 device"),
    "too many CPU devices": (
        ["parallel.cpu_devices=16"],
        2,
        r"parallel.cpu_devices=16, but JAX already runs with 8 CPU",
    ),
    "deterministic on 3 devices": (
        ["parallel.deterministic=true", "parallel.devices=3"],
        2,
        r"8 virtual shards, which 3 devices .*one of \[1, 2, 4, 8\]",
    ),
    "several names": (
        ["optimizer.name=adamm", "schedule.name=cosin", "model.name=cmm", "parallel.devices=9"],
        2,
        r"4 faults:(.|\n)*devices=9(.|\n)*'cosin' is not one of(.|\n)*'adamm'(.|\n)*'cmm'",
    ),
    "optimizer argument": (["optimizer.kwargs.bb=1"], 2, r"optimizer.kwargs={'bb': 1} .*'bb'"),
    "optimizer argument's type": (["optimizer.kwargs.b1=x"], 2, r"kwargs={'b1': 'x'} for 'adam'"),
    "schedule argument": (["schedule.kwargs.bb=1"], 2, r"{'bb': 1} .*it takes rise, start, end"),
    "schedule duration": (
        ["schedule.name=step", "schedule.kwargs.every='3 weeks'"],
        2,
        r"schedule.kwargs=.* for 'step': .*duration '3 weeks' must be .*it takes every, factor",
    ),
    "schedule argument missing": (["schedule.name=step"], 2, r"for 'step': .*argument: 'every'"),
    "model path": (
        ["model.name=no.such:Net"],
        2,
        r"'no.such:Net' cannot be imported: ModuleNotFoundError: No module",
    ),
    "cutout": (["augment.cutout=28"], 2, "augment.cutout=28 can blank images of 28 .*at most 27"),
    "rotation": (["augment.rotation=x"], 2, "augment.rotation = 'x' must be degrees in 0..180"),
    "small images": (
        ["model.name=simple_cnn", "model.kwargs.channels=[8,8,8,8,8,8,8,8]"],
        1,
        "8 convolutions 5×5 without padding need images of 33 pixels .* on which 6 fit: set",
    ),
    "shift": (["augment.shift=28"], 2, r"augment.shift=28 moves images of 28 pixels .*at most 27"),
    "model no class": (["model.name=math:pi"], 2, r"it must be a flax.linen.Module class"),
    "model argument": (["model.kwargs.width=3"], 2, r"has width, which CNN does not take"),
    "model argument's type": (["model.kwargs.dropout=x"], 1, r"model CNN fails on images uint8"),
    "model key twice": (["model.kwargs.conv=xla"], 2, r"conv, which have keys of their own"),
    "data set": (["dataset.name=mnits"], 2, r"dataset.name = 'mnits' is unknown.*'mnist'\?"),
    "data set no function": (["dataset.name=math:pi"], 1, r"math:pi gives float; expected a func"),
    "too few classes": (["dataset.classes=3"], 1, r"train-labels.*label 5 at index 0 .*0 to 2"),
    "validation too large": (
        ["dataset.validation=60000"],
        2,
        r"dataset.validation = 60000: .*choose 0 to 59999",
    ),
}


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def packed_badly(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes())[:-900])


def of_pixels(count: int, h: int, w: int):
    return lambda path: path.write_bytes(idx(np.ones((count, h, w), np.uint8)))


def of_labels(*, count: int = 61, last: int = 0):
    return lambda path: path.write_bytes(
        idx(np.array([i % CLASSES for i in range(count - 1)] + [last], np.uint8))
    )


# Which file of the data set is replaced, how, and what is said of it.
DAMAGED_DATA = {
    "missing": ("t10k-labels-idx1-ubyte", Path.unlink, r"are missing: t10k-labels-idx1-ubyte; put"),
    "corrupt gzip": ("train-images-idx3-ubyte", packed_badly, r"corrupt gzip file"),
    "empty": ("train-images-idx3-ubyte", lambda p: p.write_bytes(b""), r"truncated: found 0 of 4"),
    "wrong magic": (
        "train-images-idx3-ubyte",
        lambda p: p.write_bytes(b"\x89PNG" + p.read_bytes()),
        r"wrong magic number: found 0x89504e47",
    ),
    "truncated": (
        "train-images-idx3-ubyte",
        lambda p: p.write_bytes(p.read_bytes()[:-7]),
        r"truncated: found 478553 of 478560 bytes",
    ),
    "over-long": (
        "t10k-labels-idx1-ubyte",
        lambda p: p.write_bytes(p.read_bytes() + b"x"),
        r"over-long: found more than 61 bytes",
    ),
    "images for labels": (
        "t10k-labels-idx1-ubyte",
        of_pixels(61, 20, 24),
        r"found 3 dimensions, expected 1",
    ),
    "counts differ": ("t10k-labels-idx1-ubyte", of_labels(count=60), r"60 labels, expected 61"),
    "label out of range": (
        "t10k-labels-idx1-ubyte",
        of_labels(last=7),
        r"t10k-labels-idx1-ubyte: label 7 at index 60 .*expected 0 to 6",
    ),
    "other size": (
        "t10k-images-idx3-ubyte",
        of_pixels(61, 24, 20),
        r"expected \(20, 24, 1\) as in",
    ),
    "tiny images": ("train-images-idx3-ubyte", of_pixels(997, 20, 3), r"at least 4×4 pixels"),
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """An empty current directory but for four config files that cannot be used."""
    monkeypatch.chdir(tmp_path)
    texts = {
        "raises": "from jaxmnist.config import default_config\ndef get_config():\n    1 / 0\n",
        "syntax": "def get_config(:\n",
        "none": "x = 1\n",
        "key": "import jaxmnist\ndef get_config():\n    c = jaxmnist.get_config()\n"
        "    c.sead = 1\n    return c\n",
    }
    for name, text in texts.items():
        Path(f"{name}.py").write_text(text)
    return tmp_path


@pytest.fixture
def refused(run, place):
    """Checks that a command line is refused with a sentence and that no file changes."""

    def refused(*arguments: object, code: int, sentence: str) -> None:
        before = digest(place)
        done = run(*arguments)
        assert done.code == code, done.err
        assert re.search(sentence, done.err), done.err
        assert done.err.startswith("jaxmnist: ")
        assert "Traceback" not in done.err
        assert done.out == ""
        assert digest(place) == before

    return refused


class TestConfiguration:
    @pytest.mark.parametrize("name", FIRST_STAGE)
    def test_first_stage(self, refused, name):
        line, code, sentence = FIRST_STAGE[name]
        refused(*line.split(), code=code, sentence=sentence)

    @pytest.mark.parametrize("name", SECOND_STAGE)
    def test_second_stage(self, refused, name):
        settings, code, sentence = SECOND_STAGE[name]
        flags = [f"--config.{setting}" for setting in settings]
        refused("train", *flags, code=code, sentence=sentence)

    def test_the_first_stage_and_help_answer_without_importing_jax(self, place):
        lines = [line.split() for line, _, _ in FIRST_STAGE.values()]
        lines += [[name, "--help"] for name in command_line.COMMANDS] + [[], ["--version"]]
        code = (
            "import sys, json\n"
            "from jaxmnist.cli.main import main\n"
            f"codes = [main(line) for line in {lines!r}]\n"
            "heavy = {'jax', 'flax', 'optax', 'numpy', 'grain', 'rich'} & set(sys.modules)\n"
            "print('LAST', json.dumps([codes, sorted(heavy)]))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        codes, heavy = json.loads(done.stdout.rpartition("LAST")[2])
        assert heavy == []
        expected = [code for _, code, _ in FIRST_STAGE.values()]
        assert codes == expected + [0] * (len(lines) - len(expected))

    def test_a_platform_that_is_not_there_is_said(self, place):
        environment = os.environ | {"JAX_PLATFORMS": "abacus"}
        done = subprocess.run(
            [sys.executable, "-m", "jaxmnist", "train"],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 2
        assert re.fullmatch(r"jaxmnist: .*'abacus'.*; correct JAX_PLATFORMS\n", done.stderr)
        assert not Path("runs").exists()


class TestData:
    @pytest.mark.parametrize("name", DAMAGED_DATA)
    def test_a_damaged_file_is_named(self, refused, data, place, name):
        file, damage, sentence = DAMAGED_DATA[name]
        copy = Path(shutil.copytree(data, place / "set"))
        damage(copy / file)
        refused("train", "--config.dataset.dir=set", code=1, sentence=sentence)

    def test_a_directory_that_is_not_there_or_a_file_is_named(self, refused):
        for path in ("nowhere", "none.py"):
            sentence = f"{path}: not a directory that can be read: train-images-idx3-ubyte, .*or co"
            refused("train", f"--config.dataset.dir={path}", code=1, sentence=sentence)

    def test_data_that_went_away_after_training_are_named(self, refused, workdir, data):
        path = workdir / "config.json"
        path.write_text(path.read_text().replace(str(data), "gone"))
        sentence = "gone: not a directory that can be read"
        refused("eval", f"--workdir={workdir}", code=1, sentence=sentence)


def test_steps_to_trace_that_the_run_does_not_make_are_named(run, flags, tmp_path):
    done = run("train", *flags, "--profile_steps=19:21", f"--workdir={tmp_path / 'run'}")
    assert done.code == 2 and "Traceback" not in done.err
    assert "the steps 19:21 cannot be traced; the run has 20 steps: choose some of" in done.err


class TestReports:
    def test_what_is_no_run_or_cannot_be_written_is_named(self, refused, finished):
        sentence = r"nowhere is not the work directory of a run: .*; give the --workdir of a run"
        refused("report", "--workdir=nowhere", code=1, sentence=sentence)
        more = ("--compare", "nowhere")
        refused("report", f"--workdir={finished}", *more, code=1, sentence=sentence)
        sentence = r"the report cannot be written to none.py/x: .*; choose another --out"
        refused("report", f"--workdir={finished}", "--out=none.py/x", code=1, sentence=sentence)


class TestExportedModels:
    @pytest.mark.parametrize(
        ("path", "sentence"),
        [
            ("7.stablehlo", r"7.stablehlo cannot be read \(No such file.*of `jaxmnist export`\n$"),
            (".", r"\. cannot be read \(Is a directory\)"),
            ("none.py", r"none.py is damaged or no exported model: .*; export it anew with .*\n$"),
        ],
    )
    def test_a_file_that_is_none_or_damaged_is_named(self, refused, path, sentence):
        refused("predict", f"--model={path}", "7.png", code=1, sentence=sentence)

    def test_a_run_that_is_none_or_a_place_that_cannot_be_written_is_named(self, refused, finished):
        sentence = r"nowhere is not the work directory of a run"
        refused("export", "--workdir=nowhere", code=1, sentence=sentence)
        sentence = r"cannot be written to none.py/x: .*; choose another --out"
        refused("export", f"--workdir={finished}", "--out=none.py/x", code=2, sentence=sentence)


class TestWorkDirectory:
    @pytest.mark.parametrize(
        ("path", "sentence"),
        [
            ("none.py", r"none.py is a file: choose another --workdir"),
            ("none.py/run", r"work directory none.py/run cannot be written: Not a directory"),
            (".", r"\. is not empty and holds no config.json: it is not a run of jaxmnist; choose"),
        ],
    )
    def test_one_that_cannot_be_used_is_left_alone(self, refused, flags, path, sentence):
        refused("train", *flags, f"--workdir={path}", code=1, sentence=sentence)

    def test_one_of_another_configuration_is_refused_with_the_keys(self, refused, flags, workdir):
        changed = ["--config.seed=3", "--config.optimizer.name=sgd", "--config.log.every=1"]
        sentence = (
            r"holds a run of another configuration:\n  - seed: 0 there, 3 now\n"
            r"  - optimizer.name: 'adam' there, 'sgd' now\nchoose .*--allow_config_change"
        )
        arguments = ["train", *flags, *changed, f"--workdir={workdir}"]
        refused(*arguments, code=1, sentence=sentence)

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("{", r"config.json cannot be read: Expecting.*; restore it, or start anew"),
            ("[]", r"config.json cannot be read: a list where an object belongs; restore it"),
            ('{"sead": 1}', r"config.json cannot .*another version of jaxmnist.*'sead'"),
            ('{"seed": "x"}', r"config.json cannot .*seed = 'x' must be an integer"),
        ],
    )
    @pytest.mark.parametrize("command", ["train", "eval", "checkpoints"])
    def test_a_damaged_config_is_not_overwritten(
        self, refused, flags, workdir, command, text, sentence
    ):
        (workdir / "config.json").write_text(text)
        more = flags if command == "train" else []
        refused(command, *more, f"--workdir={workdir}", code=1, sentence=sentence)

    @pytest.mark.parametrize("command", ["eval", "checkpoints", "predict 7.png"])
    @pytest.mark.parametrize("path", [".", "nowhere"])
    def test_a_command_on_no_run_says_so(self, refused, command, path):
        sentence = r"is not the work directory of a run: it holds no config.json; give --workdir"
        refused(*command.split(), f"--workdir={path}", code=1, sentence=sentence)

    def test_a_step_without_a_checkpoint_is_answered_with_those_there_are(self, refused, workdir):
        arguments = ["eval", f"--workdir={workdir}", "--step=11"]
        refused(*arguments, code=1, sentence=r"no checkpoint of step 11: there are 10, 20")

    def test_the_split_of_a_run_without_validation(self, refused, workdir):
        arguments = ["eval", f"--workdir={workdir}", "--split=validation"]
        sentence = r"'validation' does not exist in this run: choose one of train, test"
        refused(*arguments, code=2, sentence=sentence)

    def test_a_checkpoint_with_a_flipped_bit_is_not_used(self, refused, workdir):
        files = [p for p in (workdir / "checkpoints" / "20" / "state").rglob("*") if p.is_file()]
        flip_bit(max(files, key=lambda p: p.stat().st_size))
        arguments = ["eval", f"--workdir={workdir}", "--step=20"]
        refused(
            *arguments,
            code=1,
            sentence=r"checkpoints/20 is damaged: the SHA-256 of state/.* is not what was written",
        )

    def test_all_damaged_checkpoints_are_listed(self, refused, workdir):
        for step in (10, 20):
            (workdir / "checkpoints" / str(step) / "manifest.json").unlink()
        sentence = r"no checkpoint that can be used:\n  - .*/20 is damaged(.|\n)*  - .*/10 is dam"
        for command in ("eval", "predict 7.png"):
            refused(*command.split(), f"--workdir={workdir}", code=1, sentence=sentence)

    def test_no_checkpoints_at_all(self, refused, workdir):
        shutil.rmtree(workdir / "checkpoints")
        sentence = r"no checkpoint that can be used: it holds none"
        refused("eval", f"--workdir={workdir}", code=1, sentence=sentence)


class TestPictures:
    def test_every_file_that_cannot_be_used_is_listed(self, refused, workdir):
        sentence = (
            r"2 pictures cannot be used:\n  - none.py .* is not a picture that can be read"
            r"(.|\n)*  - 7.png cannot be opened \(No such file or directory\): check the path"
        )
        arguments = ["predict", f"--workdir={workdir}", "none.py", "7.png"]
        refused(*arguments, code=1, sentence=sentence)


@pytest.fixture
def command(monkeypatch):
    """Makes `jaxmnist info` raise an error."""

    def fail_with(error: BaseException) -> None:
        def fail(flags):
            raise error

        monkeypatch.setitem(command_line.COMMANDS, "info", (fail, []))

    return fail_with


class TestMisfortune:
    @pytest.mark.parametrize(
        ("error", "code", "sentence"),
        [
            (OSError(28, "No space left on device", "w/x"), 1, "No space left on device: 'w/x'"),
            (KeyboardInterrupt(), 130, "interrupted; nothing was under way"),
            (MemoryError("Unable to allocate 7 TiB"), 1, r"out of memory \(Unable to allocate 7 T"),
            (
                RuntimeError("RESOURCE_EXHAUSTED: Out\nof"),
                1,
                r"\(RESOURCE_EXHAUSTED: Out\): make b",
            ),
        ],
    )
    def test_what_the_machine_cannot_do_is_one_sentence(
        self, refused, command, error, code, sentence
    ):
        command(error)
        refused("info", code=code, sentence=sentence)

    def test_an_error_that_nobody_foresaw_keeps_its_trace(self, run, command):
        command(RuntimeError("surprise"))
        with pytest.raises(RuntimeError, match="surprise"):
            run("info")

    @pytest.mark.parametrize("arguments", [["config"], ["train", "--help"]])
    def test_a_reader_that_went_away_is_no_error_to_talk_about(self, arguments):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "jaxmnist", *arguments]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, "")

    def test_a_locale_that_lacks_characters_does_not_stop_a_command(self):
        environment = os.environ | {"PYTHONIOENCODING": "ascii"}
        code = "from jaxmnist.cli import main\nmain._EXAMPLES = '20×24'\nmain.run()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
        assert (done.returncode, done.stdout[-6:], done.stderr) == (0, b"20?24\n", b"")
