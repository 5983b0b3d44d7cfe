"""The runs that the proofs compare: variants of the tiny model, each trained by the real loop."""

import functools
import tempfile
from pathlib import Path

import jax

import jaxmnist
from support import Tiny, small_config, small_data

STRATEGIES = ("shard_map", "pmap", "jit")
# Configuration, model, and what the oracle is told.
VARIANTS = {
    "plain": ({}, {}, {}),
    "accumulation": ({"train__accumulate": 4}, {}, {}),
    "dropout and shift": (
        {"augment__shift": 1},
        {"dropout": 0.5},
        {"dropout": 0.5, "shift": 1},
    ),
    "batch norm": ({}, {"groups": 8}, {"batch_norm": True}),
    "clipping and average": (
        {
            "optimizer__clip_norm": 0.5,
            "optimizer__weight_decay": 0.02,
            "train__ema_decay": 0.9,
            "train__label_smoothing": 0.1,
            "schedule__name": "linear",
        },
        {},
        {"clip": 0.5, "decay": 0.02, "ema_decay": 0.9, "smoothing": 0.1, "linear": True},
    ),
}


@functools.cache
def trained(variant, strategy="shard_map", devices=1, *, deterministic=False, batch_size=32):
    """The result of 20 steps of a variant; its state in host memory, as kept per device."""
    config, model, _ = VARIANTS[variant]
    config = small_config(
        parallel__strategy=strategy,
        parallel__devices=devices,
        parallel__deterministic=deterministic,
        batch_size=batch_size,
        log__every=1,
        checkpoint__every=1000,
        eval__every=1000,
        seed=3,
        **config,
    )
    with tempfile.TemporaryDirectory() as folder:
        return jaxmnist.train(
            config, Path(folder) / "run", dataset=small_data(), model=Tiny(**model), quiet=True
        )


def learned(result):
    """All that training changes, in host memory."""
    state = jax.device_get(result.state)
    return state.params, state.opt_state, state.batch_stats, state.ema
