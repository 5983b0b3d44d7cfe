"""An exported model gives the bits of the model that was trained, in a process without Flax."""

import hashlib
import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from PIL import Image
from safetensors import safe_open

import jaxmnist
from jaxmnist.cli.main import main
from jaxmnist.errors import ModelError, UsageError
from jaxmnist.models import CNN
from jaxmnist.models.build import model_functions
from jaxmnist.runs.evaluate import load_run
from jaxmnist.runs.exported import load_exported, sealed
from jaxmnist.state import tree_sha256
from support import Tiny, small_config, small_data

SIZES = (1, 7, 1000)
ALONE = """
import sys
import numpy as np
import jaxmnist
from jaxmnist.cli.main import main
model, images, out, *pictures = sys.argv[1:]
arrays = np.load(images)
exported = jaxmnist.load_exported(model)
np.savez(out, **{name: exported(arrays[name]) for name in arrays})
code = main(["predict", f"--model={model}", "--json", *pictures])
print({"flax", "optax", "orbax", "grain", "jaxmnist.models", "jaxmnist.step"} & {*sys.modules})
sys.exit(code)
"""


def images(count, *, shape=(8, 8, 1)):
    return np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)


def logits_of(model, variables, images):
    """The logits of a model that is jitted as a user would."""
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(model.apply)(variables, images))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory of IDX files, so that commands find the data set."""
    made, directory = small_data(), tmp_path_factory.mktemp("data")
    for name, split in (("train", made.train), ("t10k", made.test)):
        for kind, array in (("images", split.images[..., 0]), ("labels", split.labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            path = directory / f"{name}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
            path.write_bytes(head + array.astype(np.uint8).tobytes())
    return directory


@pytest.fixture(scope="module")
def workdir(data, tmp_path_factory):
    """A run with the convolution for CPUs and a moving average, on two devices."""
    keys = {"dataset.dir": data, "parallel.devices": 2, "train.ema_decay": 0.9}
    config = small_config(**keys, train__steps=6, checkpoint__every=3)
    path = tmp_path_factory.mktemp("run") / "run"
    jaxmnist.train(config, path, quiet=True)
    return path


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
    return jaxmnist.export(workdir, tmp_path_factory.mktemp("out") / "new" / "model.stablehlo")


@pytest.fixture(scope="module")
def state(workdir):
    return load_run(workdir)[1]


@pytest.fixture(scope="module")
def alone(exported, tmp_path_factory):
    """What such a process says of pictures, its logits, and what it imported."""
    directory = tmp_path_factory.mktemp("alone")
    np.savez(directory / "in.npz", **{str(n): images(n) for n in SIZES})
    pictures = [directory / f"{i}.png" for i in range(3)]
    for picture, image in zip(pictures, small_data().test.images, strict=False):
        Image.fromarray(image[..., 0]).save(picture)
    places = [exported, directory / "in.npz", directory / "out.npz", *pictures]
    command = [sys.executable, "-c", ALONE, *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=directory)
    assert done.returncode == 0, done.stderr
    *lines, modules = done.stdout.splitlines()
    return [json.loads(line) for line in lines], np.load(directory / "out.npz"), modules


class TestAProcessWithoutFlax:
    def test_it_imports_no_flax_and_none_of_the_models_code(self, alone):
        assert alone[2] == "set()"

    @pytest.mark.parametrize("count", SIZES)
    def test_its_logits_are_those_of_the_jitted_model_bit_for_bit(self, alone, state, count):
        variables = {"params": jax.device_get(state.ema)}
        expected = logits_of(CNN(conv="xla"), variables, images(count))
        assert alone[1][str(count)].dtype == np.float32
        assert alone[1][str(count)].tobytes() == expected.tobytes()

    def test_it_predicts_what_the_run_predicts(self, alone, workdir):
        found = [(p["label"], p["probabilities"]) for p in alone[0]]
        pictures = [p["source"] for p in alone[0]]
        assert [Path(p).name for p in pictures] == ["0.png", "1.png", "2.png"]
        for (label, shares), theirs in zip(found, jaxmnist.predict(workdir, pictures), strict=True):
            assert label == theirs.label
            assert shares == pytest.approx(theirs.probabilities, abs=1e-5)


class TestTheFile:
    def test_jax_itself_reads_it_for_three_platforms_and_any_batch(self, exported):
        program = jax.export.deserialize(bytearray(exported.read_bytes()))
        assert program.platforms == ("cpu", "cuda", "tpu")
        assert str(program.in_avals[0]) == "uint8[b,8,8,1]"
        same = load_exported(exported)(images(5))
        assert np.asarray(program.call(images(5))).tobytes() == np.asarray(same).tobytes()

    def test_its_last_lines_say_what_goes_in_and_comes_out(self, exported, state):
        *_, line, _ = exported.read_bytes().splitlines()
        manifest = json.loads(line)
        assert manifest == load_exported(exported).manifest
        assert manifest["input"] == {"shape": ["b", 8, 8, 1], "dtype": "uint8"}
        assert manifest["output"]["shape"] == ["b", 10] and manifest["classes"] == 10
        assert (manifest["parameters"], manifest["step"]) == ("moving average", 6)
        assert manifest["params_sha256"] == tree_sha256(state.ema)
        assert tree_sha256(state.params) != tree_sha256(state.ema)

    def test_the_same_run_gives_the_same_file(self, workdir, exported, tmp_path):
        again = jaxmnist.export(workdir, tmp_path / "again")
        assert again.read_bytes() == exported.read_bytes()

    def test_it_lies_in_the_work_directory_unless_told_otherwise(self, workdir):
        assert jaxmnist.export(workdir, step=3) == workdir / "model.stablehlo"
        assert load_exported(workdir / "model.stablehlo").manifest["step"] == 3

    def test_a_model_in_python_with_batch_norm_is_exported_too(self, tmp_path):
        model, config = Tiny(groups=4), small_config(parallel__devices=1, train__steps=4)
        jaxmnist.train(config, tmp_path / "run", dataset=small_data(), model=model, quiet=True)
        parts = {"dataset": small_data(), "model": model}
        path = jaxmnist.export(tmp_path / "run", tmp_path / "out", **parts)
        state = jax.device_get(load_run(tmp_path / "run", **parts)[1])
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        for count in SIZES:
            expected = logits_of(model, variables, images(count))
            assert np.asarray(load_exported(path)(images(count))).tobytes() == expected.tobytes()
        assert load_exported(path).manifest["parameters"] == "last"

    @pytest.mark.slow
    def test_a_model_in_python_with_the_convolution_for_cpus_gets_that_of_xla(self, tmp_path):
        config, data = small_config(parallel__devices=1, train__steps=1), small_data()
        parts = {"dataset": data, "model": CNN(conv="winograd")}
        jaxmnist.train(config, tmp_path / "run", quiet=True, **parts)
        path = jaxmnist.export(tmp_path / "run", tmp_path / "out", **parts)
        state = jax.device_get(load_run(tmp_path / "run", **parts)[1])
        expected = logits_of(CNN(), {"params": state.params}, images(7))
        assert np.asarray(load_exported(path)(images(7))).tobytes() == expected.tobytes()


class TestSafetensors:
    def test_the_parameters_come_back_by_the_names_that_flax_gives_them(
        self, workdir, state, tmp_path
    ):
        path = jaxmnist.export(workdir, tmp_path / "x.safetensors", format="safetensors")
        with safe_open(path, "np") as file:
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            assert file.metadata()["params_sha256"] == tree_sha256(state.ema)
        assert {*flat} == {*flatten_dict({"params": state.ema}, sep="/")}
        variables = unflatten_dict(flat, sep="/")
        assert tree_sha256(variables["params"]) == tree_sha256(state.ema)

    def test_without_the_library_its_name_is_told(self, monkeypatch, tmp_path):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UsageError, match=r"needs a library: pip install 'jaxmnist\[export\]'"):
            jaxmnist.export(tmp_path, format="safetensors")


class TestDamage:
    @pytest.mark.parametrize("place", [0, 1000, 0.5, -70, -66, -3])
    def test_a_changed_byte_is_seen_wherever_it_is(self, exported, tmp_path, place):
        content = bytearray(exported.read_bytes())
        at = int(place * len(content)) if isinstance(place, float) else place
        content[at] ^= 16
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ModelError, match=r"bad is damaged or no exported model: .*anew"):
            load_exported(tmp_path / "bad")

    @pytest.mark.parametrize("content", [b"", b"\n", b"x", b"\n\n\n", b"\0" * 9999])
    def test_what_is_no_exported_model_is_refused(self, tmp_path, content):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ModelError, match="bad is damaged or no exported model"):
            load_exported(tmp_path / "bad")

    @pytest.mark.parametrize("share", [0.1, 0.9, 0.9999])
    def test_a_file_that_was_cut_off_is_refused(self, exported, tmp_path, share):
        content = exported.read_bytes()
        (tmp_path / "bad").write_bytes(content[: int(share * len(content))])
        with pytest.raises(ModelError, match="bad is damaged"):
            load_exported(tmp_path / "bad")

    def test_a_file_of_another_format_or_of_a_newer_jax_is_named(self, exported, tmp_path):
        manifest = dict(load_exported(exported).manifest)
        (tmp_path / "new").write_bytes(sealed(b"", manifest | {"format": 2}))
        with pytest.raises(ModelError, match="of format 2, this version reads format 1"):
            load_exported(tmp_path / "new")
        (tmp_path / "jax").write_bytes(sealed(b"\xff" * 64, manifest))
        with pytest.raises(ModelError, match=r"cannot be read by JAX [\d.]+: .*use a newer JAX"):
            load_exported(tmp_path / "jax")

    @pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"7", b"{}", b"[" * 99_999])
    def test_a_sealed_file_without_a_manifest_is_refused(self, tmp_path, text):
        body = b"program\n" + text
        digest = hashlib.sha256(body).hexdigest().encode()
        (tmp_path / "bad").write_bytes(body + b"\n" + digest + b"\n")
        with pytest.raises(ModelError, match=r"bad is no exported model: it has no manifest; .*ex"):
            load_exported(tmp_path / "bad")

    @pytest.mark.parametrize(
        "change",
        [
            {"input": {"shape": ["b", 28, 28, 1], "dtype": "uint8"}},
            {"input": {"shape": ["b", 8, 8, 1], "dtype": "float32"}},
            {"input": [8, 8, 1]},
            {"output": {"shape": ["b", 9], "dtype": "float32", "meaning": "logits"}},
            {"output": {}},
            {"classes": 9},
            {"on_black": None},
        ],
    )
    def test_a_manifest_of_another_program_is_refused(self, exported, tmp_path, change):
        program, _, _ = exported.read_bytes().rpartition(b"\n{")
        manifest = dict(load_exported(exported).manifest)
        (tmp_path / "bad").write_bytes(sealed(program, manifest | change))
        with pytest.raises(ModelError, match=r"bad has a manifest that is not its program's, it"):
            load_exported(tmp_path / "bad")

    @pytest.mark.parametrize("function", [lambda x: x, lambda x: (x, x), lambda x: x[0]])
    def test_a_program_that_is_none_of_ours_is_refused(self, exported, tmp_path, function):
        program = jax.export.export(jax.jit(function), platforms=("cpu",))(images(1))
        manifest = dict(load_exported(exported).manifest)
        (tmp_path / "bad").write_bytes(sealed(bytes(program.serialize()), manifest))
        with pytest.raises(ModelError, match=r"bad has a manifest that is not its program's"):
            load_exported(tmp_path / "bad")

    @pytest.mark.parametrize("damage", ["missing", "directory", "empty", "cut", "picture"])
    def test_the_command_says_it_in_one_sentence(self, exported, tmp_path, capfd, damage):
        path, picture, content = tmp_path / "model", tmp_path / "1.png", exported.read_bytes()
        Image.fromarray(small_data().test.images[0, ..., 0]).save(picture)
        contents = {"empty": b"", "cut": content[:-40], "picture": picture.read_bytes()}
        if damage == "directory":
            path.mkdir()
        elif damage != "missing":
            path.write_bytes(contents[damage])
        assert main(["predict", f"--model={path}", str(picture)]) == 1
        out, said = capfd.readouterr()
        assert out == "" and said.startswith(f"jaxmnist: {path} ") and said.count("\n") == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("bad", "found"),
        [
            (images(2).astype(np.float32), r"float32 of shape \(2, 8, 8, 1\)"),
            (images(2)[..., 0], r"uint8 of shape \(2, 8, 8\)"),
            (images(2)[:0], r"uint8 of shape \(0, 8, 8, 1\)"),
            (images(2, shape=(9, 8, 1)), r"uint8 of shape \(2, 9, 8, 1\)"),
            ([[1, 2]], r"int64 of shape \(1, 2\)"),
            (np.uint8(3), r"uint8 of shape \(\)"),
        ],
    )
    def test_images_of_another_kind_are_named(self, exported, bad, found):
        with pytest.raises(UsageError, match=rf"takes images uint8 of .*8, 8, 1\], not {found}"):
            load_exported(exported)(bad)

    def test_a_program_for_other_devices_says_for_which(self, exported):
        other = jax.export.export(jax.jit(lambda x: x), platforms=("tpu",))(images(1))
        model = type(load_exported(exported))(other, load_exported(exported).manifest)
        with pytest.raises(ModelError, match=r"exported for tpu, not for cpu: .*JAX_PLATFORMS"):
            model(images(1))

    def test_a_model_that_needs_a_number_for_the_batch_is_named(self, tmp_path):
        class Fixed(nn.Module):
            @nn.compact
            def __call__(self, images):
                rows = images.astype(np.float32).reshape(int(images.shape[0]), -1)
                return nn.Dense(10)(rows)

        model_functions(Fixed(), images(1)[0], classes=10)  # else it is a fine model
        config, parts = small_config(parallel__devices=1, train__steps=1), {"model": Fixed()}
        parts["dataset"] = small_data()
        jaxmnist.train(config, tmp_path / "run", quiet=True, **parts)
        with pytest.raises(ModelError, match=r"cannot be exported for any batch: .*x\.reshape"):
            jaxmnist.export(tmp_path / "run", **parts)

    def test_a_place_that_cannot_be_written_is_named(self, workdir, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match=r"cannot be written to .*choose another --out"):
            jaxmnist.export(workdir, tmp_path / "file" / "model")
        with pytest.raises(UsageError, match=r"it is a directory; choose another --out"):
            jaxmnist.export(tmp_path / "nothing", tmp_path)

    def test_a_format_that_does_not_exist_is_named(self, workdir):
        with pytest.raises(UsageError, match="'onnx' does not exist: choose stablehlo or safe"):
            jaxmnist.export(workdir, format="onnx")


def test_the_file_holds_no_path_of_the_machine(exported):
    content = exported.read_bytes()
    for place in (str(Path.cwd()), str(Path.home()), str(Path(jaxmnist.__file__).parent)):
        assert not re.search(re.escape(place.encode() + b"/"), content), place
