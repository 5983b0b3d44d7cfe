"""The run that this library grew from: plain Adam at a constant learning rate, ten epochs.

Command: jaxmnist train --config=seed
Run:     the same network as the default, batches of 64, Adam at a constant 1e-3.
"""

from ml_collections import ConfigDict

from jaxmnist.config import default_config


def get_config() -> ConfigDict:
    """Returns what differs from the default, on top of it."""
    config = default_config()
    config.batch_size = 64
    config.train.epochs = 10
    config.optimizer.learning_rate = 1e-3
    config.schedule.name = "constant"
    return config
