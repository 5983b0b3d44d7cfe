"""Stand-ins for the programs of a cloud and a cluster, which record what they were called with."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Its workers are folders: what is copied lies there, and what is sent by ssh runs there.
GCLOUD = """
import json, os, pathlib, shutil, subprocess, sys, time
folder, argv = pathlib.Path(os.environ["STAND_IN"]), sys.argv[1:]
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps(argv) + "\\n")
if argv == ["--version"]:
    sys.exit()
_, _, group, verb, *rest = argv
flags = dict(f[2:].partition("=")[::2] for f in rest if f.startswith("--"))
names = [f for f in rest if not f.startswith("--")]

def node(name):
    return folder / "workers" / name

def alive(name):
    return node(name).exists() and not (node(name) / "preempted").exists()

def program(path, text):
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(0o755)

if verb == "create":
    if (folder / "no_capacity").exists():
        sys.exit("no capacity")
    prefix, count = flags.get("node-prefix"), int(flags.get("node-count", 1))
    for name in [f"{prefix}-{i}" for i in range(count)] if prefix else names:
        program(node(name) / ".local/bin/uv", "#!/bin/sh\\nexit 0\\n")
        shutil.copy(folder / "jaxmnist", node(name) / "jaxmnist")
elif verb == "delete":
    shutil.rmtree(folder / "workers")
elif verb == "describe":
    print("ACTIVE" if group == "queued-resources" else "READY" if alive(names[0]) else "PREEMPTED")
elif verb == "scp":
    *files, target = names
    name, _, place = target.partition(":")
    for file in files:
        shutil.copy(file, node(name) / place)
elif verb == "ssh":
    home = node(names[0])
    if not alive(names[0]):
        sys.exit(255)
    environment = {**os.environ, "HOME": str(home)}
    child = subprocess.Popen(["bash", "-c", flags["command"]], env=environment, cwd=home)
    while child.poll() is None and alive(names[0]):
        time.sleep(0.02)
    child.kill()
    target = home / "jaxmnist-job/environment/bin"
    if "install" in flags["command"]:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(home / "jaxmnist", target / "jaxmnist")
    sys.exit(child.returncode)
"""
# What the workers run in place of a training: the next outcome that the test has put there.
JAXMNIST = """
import json, os, pathlib, sys
folder = pathlib.Path(os.environ["STAND_IN"])
with (folder / "trained").open("a") as trained:
    trained.write(json.dumps(sys.argv[1:]) + "\\n")
print("a line of the log", flush=True)
outcomes = (folder / "outcomes").read_text().split()
(folder / "outcomes").write_text(" ".join(outcomes[1:] or ["0"]))
if outcomes[0] == "preempted":
    pathlib.Path(os.environ["HOME"], "preempted").touch()
    sys.exit(1)
sys.exit(int(outcomes[0]))
"""
RECORDER = """
import json, os, pathlib, sys
folder, name = pathlib.Path(os.environ["STAND_IN"]), pathlib.Path(sys.argv[0]).name
with (folder / name).open("a") as calls:
    calls.write(json.dumps([sys.argv[1:], "" if sys.stdin.isatty() else sys.stdin.read()]) + "\\n")
print(os.environ.get("ANSWER", ""))
sys.exit(int(os.environ.get("CODE", 0)) if name in ("srun", "sbatch") else 0)
"""


@dataclasses.dataclass
class StandIn:
    """The folder in which the stand-ins record, and have their workers."""

    folder: Path

    def records(self, name: str) -> list:
        """What was recorded under a name, in the order of the calls."""
        path = self.folder / name
        return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []

    def outcomes(self, *outcomes: str) -> None:
        """How the next trainings end: exit codes, or "preempted"."""
        (self.folder / "outcomes").write_text(" ".join(outcomes))

    @property
    def verbs(self) -> list[str]:
        """The calls of gcloud that change something, and those by ssh with their command."""
        calls = [call[3:] for call in self.records("calls") if len(call) > 3]
        commands = [next((f for f in call if f.startswith("--command")), "") for call in calls]
        words = (
            f"{call[0]} {c.rpartition(' ')[2]}" for call, c in zip(calls, commands, strict=True)
        )
        return [word.strip() for word in words if not word.startswith("describe")]


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> StandIn:
    """gcloud, sbatch, srun and scontrol on the PATH."""
    programs, folder = tmp_path / "bin", tmp_path / "stand_in"
    programs.mkdir()
    folder.mkdir()
    texts = dict.fromkeys(("sbatch", "srun", "scontrol"), RECORDER) | {"gcloud": GCLOUD}
    for path, text in {programs / name: text for name, text in texts.items()}.items():
        path.write_text(f"#!{sys.executable}\n{text}")
    (folder / "jaxmnist").write_text(f"#!{sys.executable}\n{JAXMNIST}")
    (programs / "python3").write_text("#!/bin/sh\nexit 0\n")
    (programs / "sleep").write_text("#!/bin/sh\nexec /bin/sleep 0.1\n")
    for path in [*programs.iterdir(), folder / "jaxmnist"]:
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN", str(folder))
    found = StandIn(folder)
    found.outcomes("0")
    return found


@pytest.fixture
def check_shell():
    """Fails on what shellcheck finds in a script."""
    # It is installed beside the interpreter, which need not be on the path.
    program = str(Path(sys.executable).with_name("shellcheck"))

    def check(script):
        command = [program, "--shell=bash", "-"]
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return check
