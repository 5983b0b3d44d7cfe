"""Workers: two loops that one writes without a library, in JAX with its default settings.

  blog   as in blog posts: Flax layers, float32 arrays in host memory, one gather a batch, a jitted
         step that returns the loss, metrics kept and read at the end of the epoch
  plain  the same network and optimizer, uint8 batches, the state donated, nothing read

Both run on JAX's one default device with XLA's convolutions. Requests: {"steps": n}, {"losses": n};
to the blog post's loop also {"seed": n, "epochs": m}: a whole training with its accuracy.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training import train_state
from measure.workers import serve

from rivals.task import LEARNING_RATE, batch_indices, load_task


class Network(nn.Module):
    """The network of the Flax examples."""

    @nn.compact
    def __call__(self, x):
        """Images [b, 28, 28, 1] in [0, 1] to logits [b, 10]."""
        for features in (32, 64):
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(256)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(x)


def mean_loss(params, images, labels):
    """Cross-entropy and accuracy of a batch."""
    logits = Network().apply({"params": params}, images)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits.argmax(-1) == labels).mean()


@jax.jit
def blog_step(state, images, labels):
    """A step as blog posts write it."""
    (loss, accuracy), gradient = jax.value_and_grad(mean_loss, has_aux=True)(
        state.params, images, labels
    )
    return state.apply_gradients(grads=gradient), loss, accuracy


class Blog:
    """The blog post's loop."""

    def __init__(self, images, labels, params):
        """Converts the images once, as such loops do."""
        self.images, self.labels = images.astype(np.float32) / 255.0, labels
        self.state = train_state.TrainState.create(
            apply_fn=Network().apply,
            params=jax.tree.map(jnp.asarray, params),
            tx=optax.adam(LEARNING_RATE),
        )

    def run(self, indices):
        """One pass over batches; the losses."""
        kept = []
        for rows in indices:
            batch = {"image": self.images[rows], "label": self.labels[rows]}
            self.state, loss, accuracy = blog_step(self.state, batch["image"], batch["label"])
            kept.append({"loss": loss, "accuracy": accuracy})
        return [float(metrics["loss"]) for metrics in jax.device_get(kept)]


class Plain:
    """A plain jitted loop with nothing in its way."""

    def __init__(self, images, labels, params):
        """Compiles nothing yet."""
        self.images, self.labels = images, labels
        tx = optax.adam(LEARNING_RATE)
        self.params = jax.tree.map(jnp.asarray, params)
        self.opt_state = tx.init(self.params)

        def step(params, opt_state, images, labels):
            images = images.astype(jnp.float32) / 255
            loss = lambda p: mean_loss(p, images, labels)[0]  # noqa: E731
            value, gradient = jax.value_and_grad(loss)(params)
            updates, opt_state = tx.update(gradient, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, value

        self.step = jax.jit(step, donate_argnums=(0, 1))

    def run(self, indices):
        """One pass over batches; the losses."""
        losses = []
        for rows in indices:
            self.params, self.opt_state, loss = self.step(
                self.params, self.opt_state, self.images[rows], self.labels[rows]
            )
            losses.append(loss)
        return [float(loss) for loss in jax.device_get(losses)]


LOOPS = {"blog": Blog, "plain": Plain}


def whole_training(images, labels, params, *, batch, seed, epochs, examples=None):
    """The blog post's training from fresh parameters, compiled before the clock starts."""
    from jaxmnist import datasets

    test = datasets.load("mnist").test
    loop, draws = Blog(images[:examples], labels[:examples], params), np.random.default_rng(seed)
    start = time.perf_counter()
    loop.run(np.arange(batch)[None])
    compile_seconds = time.perf_counter() - start
    fresh = Network().init(jax.random.key(seed), jnp.zeros((1, 28, 28, 1)))["params"]
    loop.state = loop.state.replace(step=0, params=fresh, opt_state=loop.state.tx.init(fresh))
    predict = jax.jit(lambda params, x: Network().apply({"params": params}, x).argmax(-1))
    parts = [part.astype(np.float32) / 255 for part in np.array_split(test.images, 10)]
    seconds, curve, steps = 0.0, [], len(loop.labels) // batch
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        order = draws.permutation(len(loop.labels))[: steps * batch]
        loop.run(order.reshape(steps, batch))
        seconds += time.perf_counter() - start
        found = np.concatenate([predict(loop.state.params, part) for part in parts])
        accuracy = float((found == test.labels).mean())
        images = steps * batch * epoch
        curve.append({"images": images, "seconds": seconds, "accuracy": accuracy})
    return {**curve[-1], "curve": curve, "compile_seconds": compile_seconds}


def main():
    """Serves one of the loops at one batch size."""
    folder, batch, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    task = load_task(folder)
    loop, done = LOOPS[kind](*task), 0

    def answer(request):
        nonlocal done
        if "epochs" in request:
            return whole_training(*task, batch=batch, **request)
        count = request.get("steps") or request["losses"]
        indices = batch_indices(batch, start=done, count=count)
        cpu, start = time.process_time(), time.perf_counter()
        losses = loop.run(indices)
        seconds = time.perf_counter() - start
        done += count
        cpu_seconds = time.process_time() - cpu
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "losses": losses}

    serve(answer)


if __name__ == "__main__":
    main()
