"""Configuration: the commented default, files, overrides, validation; nothing here imports JAX."""

from jaxmnist.config.durations import Duration, is_due, to_steps, training_length
from jaxmnist.config.load import from_dict, get_config
from jaxmnist.config.overrides import apply_overrides, split_arguments
from jaxmnist.config.suggest import did_you_mean
from jaxmnist.config.validate import VIRTUAL_SHARDS, nearest_multiples, validate
from jaxmnist.config.values import default_config, resume_difference, to_dict, to_text

__all__ = ["VIRTUAL_SHARDS", "Duration", "apply_overrides", "default_config", "did_you_mean"]
__all__ += ["from_dict", "get_config", "is_due", "nearest_multiples", "resume_difference"]
__all__ += ["split_arguments", "to_dict", "to_steps", "to_text", "training_length", "validate"]
