"""What the examples share: a small data set and model, few steps."""

from ml_collections import ConfigDict

import jaxmnist


def get_config() -> ConfigDict:
    """The default with what differs."""
    config = jaxmnist.get_config()
    config.dataset.name = "mydigits.data:bars"
    config.model.name = "mydigits.models:WideNet"
    config.batch_size = 32
    config.train.epochs = None
    config.train.steps = 24
    config.optimizer.learning_rate = 0.01
    config.checkpoint.every = 6
    return config
