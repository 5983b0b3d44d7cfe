"""Which work directories are in a bucket, and what is said of those that cannot be."""

import re
import sys
from pathlib import Path

import pytest

import jaxmnist
from jaxmnist.bucket.address import Address, check, parse
from jaxmnist.cli.main import main
from jaxmnist.errors import UsageError


@pytest.mark.parametrize("path", ["runs/a", "/abs", "gs:/one/slash", "a,b", Path("x")])
def test_a_path_is_a_path(path):
    assert parse(path) is None


@pytest.mark.parametrize(
    ("text", "bucket", "path", "name"),
    [
        ("gs://digits/runs/one", "digits", "runs/one", "one"),
        ("gs://digits/runs/one/", "digits", "runs/one", "one"),
        ("gs://my-digits.example_1", "my-digits.example_1", "", "my-digits.example_1"),
        ("gs://digits/a b=c", "digits", "a b=c", "a b=c"),
    ],
)
def test_an_address_is_a_bucket_and_a_path(text, bucket, path, name):
    assert parse(text) == Address(bucket, path)
    assert parse(text).name == name
    assert str(parse(text)) == text.rstrip("/")


def test_no_mirror_lies_within_another():
    mirrors = {parse(t).mirror(p) for t in ("gs://digits/a", "gs://digits/a/0/a") for p in (0, 1)}
    assert len(mirrors) == 4
    assert not any({*mirror.parents} & mirrors for mirror in mirrors)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("s3://bucket/run", "is not a place that jaxmnist can use: the one object store is Google"),
        ("hdfs://host/run", "give such an address or a directory; other stores can be mounted"),
        ("GS://bucket/run", "is not a place"),
        ("gs://", "names no bucket: give gs://BUCKET/PATH"),
        ("gs://UP/run", "names no bucket"),
        ("gs://digits//run", "is no good path in a bucket: its parts must not be empty"),
        ("gs://digits/a*", "is no good path in a bucket"),
        ("gs://digits/a\nb", "is no good path in a bucket"),
        ("gs://digits/" + "x" * 501, "is no good path in a bucket"),
        ("gs://digits/a/../b", r"has \. or \.\. in its path: write it out"),
    ],
)
def test_what_cannot_be_one_is_refused(text, says):
    with pytest.raises(UsageError, match=f"--workdir={re.escape(text)}.*{says}(?s:.*)"):
        parse(text)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud", None)
    monkeypatch.delitem(sys.modules, "google.cloud.storage", raising=False)
    says = r"--workdir=gs://digits/a needs a library: pip install 'jaxmnist\[gcs\]'"
    with pytest.raises(UsageError, match=says):
        check("gs://digits/a")
    assert check("gs://digits/a/", here=False) == "gs://digits/a"
    with pytest.raises(UsageError, match=says):
        jaxmnist.train(jaxmnist.get_config(), "gs://digits/a")


@pytest.mark.parametrize("command", ["train", "eval", "checkpoints", "export", "report"])
def test_every_command_refuses_what_cannot_be_one(command, capfd):
    assert main([command, "--workdir=s3://bucket/run"]) == 2
    assert "jaxmnist: --workdir=s3://bucket/run is not a place that jaxmnist can use" in (
        capfd.readouterr().err
    )


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "digit.png"],
        ["launch", "local"],
        ["launch", "slurm"],
        ["sweep", "--seeds=0:2"],
    ],
)
def test_so_do_those_that_take_more(command, capfd):
    assert main([*command, "--workdir=s3://bucket/run"]) == 2
    assert "jaxmnist: --workdir=s3://bucket/run" in capfd.readouterr().err
