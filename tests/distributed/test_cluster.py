"""Which cluster is recognised, and which GPUs a task of it takes."""

import pytest

from jaxmnist.distributed.cluster import Cluster, detect, local_gpus
from jaxmnist.errors import JobError

SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NODELIST": "node[007-010]",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2(x4)",
}
OPEN_MPI = {"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}


def four(number, tasks):
    return {**SLURM, "SLURM_LOCALID": str(number), "SLURM_STEP_TASKS_PER_NODE": tasks}


class TestGpus:
    @pytest.mark.parametrize(
        ("environment", "expected"),
        [
            # One task on each node takes all of its GPUs, not one.
            (four(0, "1(x4)") | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, None),
            # Two tasks share four.
            (four(0, "2(x4)") | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (0, 1)),
            (four(1, "2(x4)") | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (2, 3)),
            (four(1, "2(x4)") | {"SLURM_GPUS_ON_NODE": "4"}, (2, 3)),
            # A task for each GPU.
            (four(3, "4(x4)") | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (3,)),
            # Nodes with different numbers of tasks: this is node 2.
            (four(0, "1,2,4") | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (0,)),
            # Slurm has shared them out, and the task sees its own.
            (
                four(1, "2(x4)") | {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_PER_TASK": "2"},
                None,
            ),
            (four(1, "4(x4)") | {"CUDA_VISIBLE_DEVICES": "2"}, None),
            # No GPU.
            (four(1, "2(x4)"), None),
            (OPEN_MPI | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (2, 3)),
            ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, None),
        ],
    )
    def test_a_task_takes_its_share_of_the_host(self, environment, expected):
        assert local_gpus(environment) == expected


class TestDetect:
    def test_a_lone_machine(self):
        assert detect(1) is None

    def test_slurm(self, monkeypatch):
        for name, value in SLURM.items():
            monkeypatch.setenv(name, value)
        found = detect(1)
        assert found == Cluster("Slurm", 8, 5, found.coordinator_address, None)
        assert found.coordinator_address.startswith("node007:")

    def test_one_task_alone(self, monkeypatch):
        for name, value in (SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}).items():
            monkeypatch.setenv(name, value)
        assert detect(1) == Cluster("Slurm", 1, 0, None)

    def test_a_cluster_that_does_not_tell(self, monkeypatch):
        for name, value in (SLURM | {"SLURM_NTASKS": "many"}).items():
            monkeypatch.setenv(name, value)
        expected = "Slurm was recognised, but does not tell its processes: ValueError: .*; give "
        with pytest.raises(JobError, match=f"{expected}--coordinator_address, --num_processes"):
            detect(1)
