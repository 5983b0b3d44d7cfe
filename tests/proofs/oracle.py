"""A second implementation of a training run: one device, plain loops, none of the library's step.

It follows the documented contract (stream, keys, order of clipping, decay and average) and shares
no code with the train step, the optimizer, the pipeline or the layers; so a fault in any of these
shows, also one that is the same on every number of devices.
"""

import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np

GROUPS = 8


def batch_rows(seed, step, batch_size, examples):
    """Rows of a batch of the stream, one at a time."""
    rows = []
    for place in range(step * batch_size, (step + 1) * batch_size):
        epoch, within = divmod(place, examples)
        draws = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(examples)
        order = sorted(range(examples), key=lambda i, draws=draws: int(draws[i]))
        rows.append(order[within])
    return np.array(rows)


def shifted(images, seed, step, pixels):
    """Each image moved by its own draw and filled up with zeros."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), step)
    moved = np.zeros_like(images)
    n, h, w, _ = images.shape
    for row in range(n):
        own = jax.random.fold_in(jax.random.fold_in(key, row), 0)  # of the first augmentation
        draw = jax.random.randint(own, (2,), 0, 2 * pixels + 1)
        top, left = (int(d) for d in draw)
        padded = np.pad(images[row], ((pixels, pixels), (pixels, pixels), (0, 0)))
        moved[row] = padded[top : top + h, left : left + w]
    return moved


def kept(seed, step, rate, count, width, path="Dropout_0/0"):
    """Which elements dropout keeps, bool [count, width]."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), step)
    key = jax.random.fold_in(key, zlib.crc32(path.encode()))
    return np.array(
        [jax.random.bernoulli(jax.random.fold_in(key, r), 1 - rate, (width,)) for r in range(count)]
    )


def forward(params, images, keep, rate, batch_norm):
    """Logits of the tiny model, and mean and variance of each group of rows."""
    x = images.astype(jnp.float32) / 255.0
    conv = params["Conv_0"]
    x = jax.lax.conv_general_dilated(
        x, conv["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    statistics = None
    if batch_norm:
        grouped = x.reshape(GROUPS, -1, x.shape[-1])
        mean, var = grouped.mean(1), grouped.var(1)
        statistics = (mean, var)
        grouped = (grouped - mean[:, None]) / jnp.sqrt(var[:, None] + 1e-5)
        norm = params["BatchNorm_0"]
        x = grouped.reshape(x.shape) * norm["scale"] + norm["bias"]
    else:
        x = x + conv["bias"]
    x = jnp.where(x > 0, x, 0.0)
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4)).reshape(n, -1)
    first, second = params["Dense_0"], params["Dense_1"]
    x = x @ first["kernel"] + first["bias"]
    x = jnp.where(x > 0, x, 0.0)
    if keep is not None:
        x = x * keep / (1 - rate)
    return x @ second["kernel"] + second["bias"], statistics


def mean_loss(params, images, labels, keep, rate, smoothing, batch_norm):
    """Mean of the rows' cross-entropies."""
    logits, statistics = forward(params, images, keep, rate, batch_norm)
    k = logits.shape[-1]
    logs = logits - jnp.log(jnp.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
    logs = logs - logits.max(1, keepdims=True)
    target = jnp.eye(k)[labels] * (1 - smoothing) + smoothing / k
    return -(target * logs).sum(1).mean(), statistics


def train(
    params,
    data,
    *,
    seed,
    steps,
    batch_size,
    peak=0.05,
    momentum=0.9,
    decay=0.0,
    clip=None,
    ema_decay=None,
    smoothing=0.0,
    dropout=0.0,
    shift=0,
    batch_norm=False,
    bn_momentum=0.99,
    linear=False,
):
    """Parameters, momentum, average, running statistics and losses after SGD with momentum."""
    params = jax.tree.map(lambda x: np.array(x), params)
    velocity = jax.tree.map(np.zeros_like, params)
    average = params
    running = [np.zeros(4, np.float32), np.ones(4, np.float32)]
    losses = []
    gradient_of = jax.jit(jax.value_and_grad(mean_loss, has_aux=True), static_argnums=(4, 5, 6))
    for step in range(steps):
        rate = peak * (1 - step / steps) if linear else peak
        rows = batch_rows(seed, step, batch_size, len(data.train))
        images, labels = data.train.images[rows], data.train.labels[rows]
        if shift:
            images = shifted(images, seed, step, shift)
        keep = kept(seed, step, dropout, batch_size, 16) if dropout else None
        (loss, statistics), gradient = gradient_of(
            params, images, labels, keep, dropout, smoothing, batch_norm
        )
        losses.append(float(loss))
        norm = math.sqrt(sum(float(np.square(g).sum()) for g in jax.tree.leaves(gradient)))
        scale = clip / norm if clip is not None and norm > clip else 1.0
        velocity = jax.tree.map(lambda v, g, s=scale: momentum * v + s * g, velocity, gradient)
        params = jax.tree.map(
            lambda p, v, r=rate: p - r * v - (r * decay * p if p.ndim > 1 else 0.0),
            params,
            velocity,
        )
        if ema_decay is not None:
            average = jax.tree.map(
                lambda a, p: ema_decay * a + (1 - ema_decay) * p, average, params
            )
        if statistics is not None:
            running = [
                bn_momentum * old + (1 - bn_momentum) * new.mean(0)
                for old, new in zip(running, statistics, strict=True)
            ]
    return params, velocity, average if ema_decay is not None else None, running, losses
