"""Configuration: the commented default, files, overrides, validation; nothing here imports JAX."""

from jaxmnist.config.default import KEYS as KEYS
from jaxmnist.config.durations import Duration as Duration
from jaxmnist.config.durations import is_due as is_due
from jaxmnist.config.durations import to_steps as to_steps
from jaxmnist.config.durations import training_length as training_length
from jaxmnist.config.load import get_config as get_config
from jaxmnist.config.load import shipped_configs as shipped_configs
from jaxmnist.config.overrides import Arguments as Arguments
from jaxmnist.config.overrides import apply_overrides as apply_overrides
from jaxmnist.config.overrides import split_arguments as split_arguments
from jaxmnist.config.suggest import did_you_mean as did_you_mean
from jaxmnist.config.validate import VIRTUAL_SHARDS as VIRTUAL_SHARDS
from jaxmnist.config.validate import nearest_multiples as nearest_multiples
from jaxmnist.config.validate import validate as validate
from jaxmnist.config.values import default_config as default_config
from jaxmnist.config.values import difference as difference
from jaxmnist.config.values import from_dict as from_dict
from jaxmnist.config.values import key_comments as key_comments
from jaxmnist.config.values import resume_difference as resume_difference
from jaxmnist.config.values import to_dict as to_dict
from jaxmnist.config.values import to_text as to_text
