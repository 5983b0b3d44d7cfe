"""`jaxmnist launch tpu`: the script it prints is sound shell, and does what its steps say."""

import itertools
import re

import pytest

from jaxmnist.cli.main import main

AWKWARD = '/mnt/shared/it\'s a "run" of $HOME'
POD = ["--name=mnist", "--zone=us-west4-a", "--accelerator=v5e-16"]


@pytest.fixture
def source(tmp_path):
    """Something that looks like a checkout."""
    folder = tmp_path / "it's the source"
    (folder / "runs").mkdir(parents=True)
    (folder / "pyproject.toml").write_text("[project]\n")
    return folder


@pytest.fixture
def launch(capfd, source):
    """Runs the command; returns exit code, output and errors."""

    def launch(*flags, pod=POD, workdir=AWKWARD):
        capfd.readouterr()
        flags = [*pod, f"--source={source}", *([f"--workdir={workdir}"] if workdir else []), *flags]
        return main(["launch", "tpu", *flags]), *capfd.readouterr()

    return launch


SWITCHES = list(itertools.product([[], ["--spot"]], [[], ["--queued"]], [[], ["--slices=3"]]))


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_the_script_and_the_workers_script_pass_shellcheck(launch, check_shell, switches):
    code, script, err = launch(*itertools.chain(*switches), "--keep", "--config.seed=3")
    assert (code, err) == (0, "")
    check_shell(script)
    (_, workers, _) = script.split("WORKER")
    check_shell(workers.removeprefix("'\n"))


@pytest.mark.parametrize(
    ("accelerator", "kind", "image"),
    [
        ("v5e-16", "v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5litepod-256", "v5litepod-256", "v2-alpha-tpuv5-lite"),
        ("v4-8", "v4-8", "tpu-ubuntu2204-base"),
        ("v5p-128", "v5p-128", "v2-alpha-tpuv5"),
        ("v6e-1", "v6e-1", "v2-alpha-tpuv6e"),
    ],
)
def test_an_accelerator_gets_googles_name_and_its_image(launch, accelerator, kind, image):
    _, script, _ = launch(f"--accelerator={accelerator}")
    assert f"--accelerator-type={kind} --version={image}\n" in script
    _, script, _ = launch(f"--accelerator={accelerator}", "--runtime_version=mine", "--queued")
    assert f"--accelerator-type={kind} --runtime-version=mine\n" in script


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--name="], "--name= needs a value"),
        (["--name=My_TPU"], "--name=My_TPU is no name: give a letter, then"),
        (["--zone=west"], "--zone=west is no zone: give one that has the accelerator"),
        (["--accelerator=v5f-8"], "no accelerator 'v5f-8': give KIND-NUMBER with"),
        (["--accelerator=v4-6"], "'v4-6': the number of v4 counts its TensorCores"),
        (["--accelerator=v5e-0"], "'v5e-0': the number of v5e counts its chips"),
        (["--accelerator=v5e"], "'v5e': the number of v5e counts its chips"),
        (["--accelerator=v5e:4x4"], "no accelerator 'v5e:4x4'"),
        (["--project=a;b"], "--project=a;b is no name"),
        (["--slices=0"], "slices"),
        (["--source=/nowhere"], "--source=/nowhere holds no pyproject.toml to install"),
        (["--config.seed=-1"], "seed"),
        (["start"], "'start' is a step of the script: add --run"),
        (["--run", "begin"], "there is no step 'begin': the steps are create, copy"),
        (["--num_processes=2"], "Unknown command line flag 'num_processes'"),
    ],
)
def test_bad_input_gets_one_sentence_before_anything_runs(launch, stand_in, flags, fault):
    code, out, err = launch(*flags, "--run") if "start" not in flags else launch(*flags)
    assert code == 2 and out == ""
    assert re.search(fault, err), err
    assert "Traceback" not in err and len(err.splitlines()) == 1
    assert stand_in.records("calls") == []


@pytest.mark.parametrize(("left_out", "missing"), [(0, "name"), (1, "zone"), (2, "accelerator")])
def test_what_is_missing_is_named(launch, left_out, missing):
    code, out, err = launch(pod=[flag for i, flag in enumerate(POD) if i != left_out])
    assert (code, out) == (2, "") and f"--{missing} is missing: give " in err
    code, out, err = launch(workdir=None)
    assert (code, out) == (2, "") and "--workdir is missing: give the job a directory" in err
    code, out, err = launch(workdir="s3://bucket/run")
    assert (code, out) == (2, "") and "--workdir=s3://bucket/run is not a place that" in err


def test_a_bucket_is_passed_on_and_its_library_installed(launch, check_shell):
    code, script, _ = launch(workdir="gs://bucket/a run/")
    assert code == 0 and "jaxmnist train '--workdir=gs://bucket/a run' ||" in script
    assert "'./source[tpu,gcs]'" in script and "'./source[tpu]'" in launch()[1]
    check_shell(script)


def test_without_gcloud_it_says_so(launch, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    code, _, err = launch("--run")
    assert code == 1 and "there is no program 'gcloud' here: install it, or leave --run" in err


def test_a_job_from_create_to_delete(launch, stand_in):
    code, _, err = launch("--run", "--config.seed=3", "--noreport", "--spot", "--project=mine")
    assert code == 0, err
    assert "a line of the log" in err
    assert stand_in.verbs == [
        "create",
        "ssh jaxmnist-job",
        "scp",
        "ssh install",
        "ssh start",
        "ssh follow",
        "ssh state",
        "delete",
    ]
    (trained,) = stand_in.records("trained")
    assert trained == ["train", "--noreport", "--config.seed=3", f"--workdir={AWKWARD}"]
    place = ["--zone=us-west4-a", "--project=mine"]
    create, ssh, scp, *_ = [call for call in stand_in.records("calls") if len(call) > 1]
    image = "--version=v2-alpha-tpuv5-lite"
    kind = ["--quiet", "--accelerator-type=v5litepod-16", image, "--spot"]
    assert create == ["compute", "tpus", "tpu-vm", "create", "mnist", *place, *kind]
    assert ssh[3:] == ["ssh", "mnist", *place, "--quiet", "--worker=all", ssh[-1]]
    assert [scp[3], *scp[6:]] == ["scp", "mnist:jaxmnist-job/", *place, "--quiet", "--worker=all"]


def test_slices_are_asked_for_together_and_each_gets_everything(launch, stand_in):
    code, _, err = launch("--run", "--slices=2")
    assert code == 0, err
    calls = [call[3:] for call in stand_in.records("calls") if len(call) > 1]
    assert calls[0][:5] == ["create", "mnist", "--zone=us-west4-a", "--quiet", "--node-count=2"]
    assert calls[0][5] == "--node-prefix=mnist"
    installed = [call[1] for call in calls if call[-1].endswith("install")]
    assert sorted(installed) == ["mnist-0", "mnist-1"]
    assert len(stand_in.records("trained")) == 2
    assert calls[-1] == ["delete", "mnist", "--zone=us-west4-a", "--quiet", "--force"]


def test_preempted_machines_are_made_anew_and_the_job_goes_on(launch, stand_in):
    stand_in.outcomes("preempted", "0")
    code, _, err = launch("--run", "--spot")
    assert code == 0, err
    assert "restart 1 of 5 from the last checkpoint: lost" in err
    verbs = stand_in.verbs
    assert verbs.count("create") == 2 and verbs.count("delete") == 2
    assert len(stand_in.records("trained")) == 2


def test_a_job_that_fails_is_begun_again_on_the_same_machines_and_not_for_ever(launch, stand_in):
    stand_in.outcomes("1", "1", "1", "0")
    code, _, err = launch("--run", "--restarts=2")
    assert code == 1 and "given up after 2 restart(s): 1; the machines stay: step delete" in err
    assert stand_in.verbs.count("ssh start") == 3
    assert stand_in.verbs.count("create") == 1 and "delete" not in stand_in.verbs


def test_a_fault_of_the_command_is_not_tried_again(launch, stand_in):
    stand_in.outcomes("2")
    code, _, err = launch("--run")
    assert code == 2 and "a fault of the command or the configuration; the machines stay" in err
    assert stand_in.verbs.count("ssh start") == 1 and "delete" not in stand_in.verbs


def test_where_create_fails_nothing_is_deleted(launch, stand_in):
    (stand_in.folder / "no_capacity").touch()
    code, _, err = launch("--run")
    assert code == 1 and "no capacity" in err
    assert stand_in.verbs == ["create"]


def test_a_step_runs_alone(launch, stand_in):
    assert launch("--run", "create")[0] == 0
    assert launch("--run", "delete")[0] == 0
    assert stand_in.verbs == ["create", "delete"]
