"""A short run on eight CPU devices that shows every part at work: steps, logs, checkpoints.

Command: jaxmnist train --config=debug
Expect:  about 20 s on 2 cores; the loss falls from 2.3 to about 0.45.
Run:     60 steps of 64 images of MNIST, the full network, SGD with momentum at a constant rate;
         a line at every step, a checkpoint at every tenth, an evaluation at every twentieth.
"""

from ml_collections import ConfigDict

from jaxmnist.config import default_config


def get_config() -> ConfigDict:
    """Returns what differs from the default, on top of it."""
    config = default_config()
    config.batch_size = 64
    config.train.epochs = None
    config.train.steps = 60
    config.parallel.cpu_devices = 8
    # All three strategies then run the same convolution; jit has no other.
    config.model.conv = "xla"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.01
    config.optimizer.kwargs.momentum = 0.9
    config.schedule.name = "constant"
    config.log.every = 1
    config.checkpoint.every = 10
    config.eval.every = 20
    return config
