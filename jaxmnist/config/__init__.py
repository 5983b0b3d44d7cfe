"""Configuration: the commented default, files, overrides, validation; nothing here imports JAX."""

from jaxmnist.config.durations import Duration, next_due, to_steps, training_length
from jaxmnist.config.load import apply_overrides, from_dict, get_config
from jaxmnist.config.suggest import did_you_mean
from jaxmnist.config.validate import VIRTUAL_SHARDS, nearest_multiples, validate
from jaxmnist.config.values import default_config, resume_difference, to_dict, to_text

__all__ = ["VIRTUAL_SHARDS", "Duration", "apply_overrides", "default_config", "did_you_mean"]
__all__ += ["from_dict", "get_config", "nearest_multiples", "next_due", "resume_difference"]
__all__ += ["to_dict", "to_steps", "to_text", "training_length", "validate"]
