"""The best accuracy of one network within a quarter of an hour on 2 CPU cores.

Command: jaxmnist train --config=best
Run:     a network of 390,858 parameters with batch norm, 24 epochs in batches of 256 on digits that
         are turned, scaled, slanted and shifted anew each time; smoothed labels, Adam with a
         one-cycle learning rate up to 4e-3, a moving average of the parameters. The recipe was
         chosen with --config.dataset.validation=5000; the test examples are looked at once, at
         the end.
"""

from ml_collections import ConfigDict

from jaxmnist.config import default_config


def get_config() -> ConfigDict:
    """Returns what differs from the default, on top of it."""
    config = default_config()
    config.train.epochs = 24
    config.train.ema_decay = 0.998
    config.train.label_smoothing = 0.05
    config.model.name = "jaxmnist.zoo.deep_cnn:DeepCNN"
    config.augment.shift = 2
    config.augment.rotation = 10.0
    config.augment.scale = 0.1
    config.augment.shear = 6.0
    config.log.every = 100
    config.checkpoint.every = "3 epochs"
    config.eval.every = "1000 epochs"
    return config
