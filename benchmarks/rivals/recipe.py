"""Worker: the public one-epoch recipe in PyTorch, the record on a laptop's GPU.

Two convolutions (24 of 5×5, 32 of 3×3, no padding), each followed by max-pooling and relu, then 256
and 10 units; Adam(0.7, 0.9) under a one-cycle rate up to 0.01; batches of 256 in stored order, one
epoch. Written anew from these facts (github.com/tuomaso/train_mnist_fast), channels_last on CPU,
where that is faster.

The clock starts with uint8 arrays in host memory and ends with the trained parameters.
"""

import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from measure.workers import serve
from torch import nn

BATCH, PEAK = 256, 1e-2


class Network(nn.Module):
    """The recipe's network."""

    def __init__(self):
        """PyTorch's own initial parameters."""
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 24, 5), nn.Conv2d(24, 32, 3)
        self.dense1, self.dense2 = nn.Linear(32 * 5 * 5, 256), nn.Linear(256, 10)

    def forward(self, x):
        """Images [b, 1, 28, 28] to logits [b, 10]."""
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return self.dense2(F.relu(self.dense1(x.flatten(1))))


def prepared(images, device):
    """Normalised images on the device."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(device)
    x = x.to(torch.float32).div_(255).sub_(0.1307).div_(0.3081)
    return x.contiguous(memory_format=torch.channels_last)


def trained(model, images, labels, device):
    """One pass over the data, in order."""
    x, y = prepared(images, device), torch.from_numpy(labels).to(device).long()
    steps = -(-len(y) // BATCH)
    optimizer = torch.optim.Adam(model.parameters(), lr=PEAK, betas=(0.7, 0.9))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=PEAK, total_steps=steps, cycle_momentum=False
    )
    for start in range(0, len(y), BATCH):
        optimizer.zero_grad(set_to_none=True)
        rows = slice(start, start + BATCH)
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        schedule.step()
    if device == "cuda":
        torch.cuda.synchronize()


def main():
    """Serves {"seed": n}: trains once and gives accuracy and seconds."""
    from jaxmnist import datasets

    torch.set_num_threads(int(sys.argv[1]))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mnist = datasets.load("mnist")
    # Copies: PyTorch warns of read-only arrays.
    images, labels = mnist.train.images.copy(), mnist.train.labels.copy()

    def new_model():
        return Network().to(device).to(memory_format=torch.channels_last)

    trained(new_model(), images[: 8 * BATCH], labels[: 8 * BATCH], device)

    def answer(request):
        torch.manual_seed(request["seed"])
        model, take = new_model(), request.get("examples")
        cpu, start = time.process_time(), time.perf_counter()
        trained(model, images[:take], labels[:take], device)
        seconds = time.perf_counter() - start
        cpu_seconds = time.process_time() - cpu
        with torch.no_grad():
            parts = np.array_split(mnist.test.images, 10)
            found = [model(prepared(part.copy(), device)).argmax(1).cpu() for part in parts]
        accuracy = float((torch.cat(found).numpy() == mnist.test.labels).mean())
        return {
            "accuracy": accuracy,
            "seconds": seconds,
            "cores": cpu_seconds / seconds,
            "images": len(labels[:take]),
        }

    serve(answer)


if __name__ == "__main__":
    main()
