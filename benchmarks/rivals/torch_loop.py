"""Workers: the same network in PyTorch, in the ways that make it fast on a CPU.

  fp32      eager, channels_last
  bf16      the same under autocast to bfloat16
  compile   fp32 under torch.compile
  ddp       fp32 under DistributedDataParallel, one process of one thread for each core (gloo)

Images lie in memory as uint8, channels_last; each batch is gathered and scaled within the clock.
"""

import os
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from measure.workers import serve
from torch import nn

from rivals.task import LEARNING_RATE, batch_indices, load_task


class Network(nn.Module):
    """The network of the Flax examples; channels come first in shapes, last in memory."""

    def __init__(self, params):
        """Takes over parameters as Flax lays them out."""
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.dense1 = nn.Linear(64 * 7 * 7, 256)
        self.dense2 = nn.Linear(256, 10)
        # Flax flattens [h, w, c], PyTorch [c, h, w].
        flat = params["Dense_0"]["kernel"].reshape(7, 7, 64, 256).transpose(3, 2, 0, 1)
        kernels = {
            "conv1": params["Conv_0"]["kernel"].transpose(3, 2, 0, 1),
            "conv2": params["Conv_1"]["kernel"].transpose(3, 2, 0, 1),
            "dense1": flat.reshape(256, -1),
            "dense2": params["Dense_1"]["kernel"].T,
        }
        names = dict(zip(kernels, ("Conv_0", "Conv_1", "Dense_0", "Dense_1"), strict=True))
        with torch.no_grad():
            for name, kernel in kernels.items():
                layer = getattr(self, name)
                layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
                layer.bias.copy_(torch.from_numpy(params[names[name]]["bias"]))

    def forward(self, x):
        """Images [b, 1, 28, 28] in [0, 1] to logits [b, 10]."""
        x = F.avg_pool2d(F.relu(self.conv1(x)), 2)
        x = F.avg_pool2d(F.relu(self.conv2(x)), 2)
        return self.dense2(F.relu(self.dense1(x.flatten(1))))


class Loop:
    """Training in one process."""

    def __init__(self, kind, images, labels, params):
        """Builds the model and its optimizer."""
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        self.images = pixels.contiguous(memory_format=torch.channels_last)
        self.labels = torch.from_numpy(labels).long()
        self.model = Network(params).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self.bf16 = kind == "bf16"
        self.forward = self.model
        if kind == "compile":
            self.forward = torch.compile(self.model)
        if kind == "ddp":
            self.forward = nn.parallel.DistributedDataParallel(self.model)

    def run(self, indices):
        """One pass over batches; the losses."""
        losses = []
        for rows in indices:
            rows = torch.from_numpy(rows)
            x = self.images[rows].to(torch.float32).div_(255)
            x = x.contiguous(memory_format=torch.channels_last)
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                loss = F.cross_entropy(self.forward(x), self.labels[rows])
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return [float(loss) for loss in losses]


def answer_with(loop, batch, request, *, start, rank=0, ranks=1):
    """Runs a request on this process's rows of each batch, and times it."""
    count = request.get("steps") or request["losses"]
    each = batch // ranks
    indices = batch_indices(batch, start=start, count=count)[:, rank * each : (rank + 1) * each]
    indices = np.ascontiguousarray(indices)
    if ranks > 1:
        torch.distributed.barrier()
    cpu, begin = time.process_time(), time.perf_counter()
    losses = loop.run(indices)
    if ranks > 1:
        torch.distributed.barrier()
    seconds = time.perf_counter() - begin
    cpu_seconds = time.process_time() - cpu
    if ranks > 1:
        sums = torch.tensor([cpu_seconds, *losses], dtype=torch.float64)
        torch.distributed.all_reduce(sums)
        cpu_seconds, losses = float(sums[0]), (sums[1:] / ranks).tolist()
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "losses": losses}


def join(rank, ranks, store):
    """Joins the processes of DistributedDataParallel through a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=ranks
    )


def follow(loop, batch, *, rank, ranks):
    """Every process but the first: does what the first was asked to, until it says stop."""
    start = 0
    while True:
        request = [None]
        torch.distributed.broadcast_object_list(request, src=0)
        if request[0] is None:
            return
        answer_with(loop, batch, request[0], start=start, rank=rank, ranks=ranks)
        start += request[0].get("steps") or request[0]["losses"]


def main():
    """Serves one kind of loop at one batch size; further processes follow it."""
    folder, batch, kind, cores = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    rank = int(sys.argv[5]) if len(sys.argv) > 5 else 0
    ranks, followers, start = (cores if kind == "ddp" else 1), [], 0
    if kind == "ddp":
        if rank == 0:
            store = f"{folder}/ddp-{os.getpid()}"
            for other in range(1, ranks):
                arguments = [*sys.argv[1:5], str(other), store]
                command = [sys.executable, "-m", "rivals.torch_loop", *arguments]
                followers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2))
        join(rank, ranks, store if rank == 0 else sys.argv[6])
    else:
        torch.set_num_threads(cores)
    loop = Loop(kind, *load_task(folder))
    if rank:
        follow(loop, batch, rank=rank, ranks=ranks)
        return

    def answer(request):
        nonlocal start
        if ranks > 1:
            torch.distributed.broadcast_object_list([request], src=0)
        found = answer_with(loop, batch, request, start=start, ranks=ranks)
        start += request.get("steps") or request["losses"]
        return found

    serve(answer)
    if ranks > 1:
        torch.distributed.broadcast_object_list([None], src=0)
        for process in followers:
            process.wait()


if __name__ == "__main__":
    main()
