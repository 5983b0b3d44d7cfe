"""Deliberate faults, each a patch of a shipped function; `pytest -p proofs.faults --fault=NAME`.

Each is a mistake that real training code makes, most of them silently.
"""

import dataclasses

import jax
import jax.numpy as jnp


def extra_psum():
    """Gradients are reduced twice: too large by the number of devices."""
    from jaxmnist.step import body

    local_sums = body.local_sums

    def faulty(task, state, batch, part):
        sums = local_sums(task, state, batch, part)
        if part.axis is None:
            return sums
        return sums.replace(gradient=jax.lax.psum(sums.gradient, part.axis))

    body.local_sums = faulty


def _replace_reduction(reduce):
    from jaxmnist.step import body, strategies

    def faulty(task, state, batch, part):
        sums = body.local_sums(task, state, batch, part)
        if part.axis is not None:
            sums = reduce(sums, part)
        return body.apply_update(task, state, sums)

    body.local_train_step = strategies.local_train_step = faulty


def missing_reduction():
    """Each device follows its own gradient, scaled as if it were everyone's."""
    _replace_reduction(
        lambda sums, part: sums.replace(metrics=jax.lax.psum(sums.metrics, part.axis))
    )


def mean_of_means():
    """Devices with few real rows weigh as much as those with many."""

    def reduce(sums, part):
        mine = jax.tree.map(lambda g: g / jnp.maximum(sums.metrics.count, 1.0), sums.gradient)
        total = jax.lax.psum(sums, part.axis)
        mean = jax.tree.map(
            lambda g: jax.lax.psum(g, part.axis) / part.count * total.metrics.count, mine
        )
        return total.replace(gradient=mean)

    _replace_reduction(reduce)


def unsynced_batch_norm():
    """Running statistics follow the rows of one device."""

    def reduce(sums, part):
        return jax.lax.psum(sums, part.axis).replace(batch_sums=sums.batch_sums)

    _replace_reduction(reduce)


def clipping_before_the_reduction():
    """Each device clips its own gradient."""
    from jaxmnist.step import body

    local_sums = body.local_sums

    def faulty(task, state, batch, part):
        sums = local_sums(task, state, batch, part)
        squares = sum(jnp.square(g).sum() for g in jax.tree.leaves(sums.gradient))
        norm = jnp.sqrt(squares) / jnp.maximum(sums.metrics.count, 1.0)
        scale = jnp.minimum(1.0, 0.5 / norm)
        return sums.replace(gradient=jax.tree.map(lambda g: g * scale, sums.gradient))

    body.local_sums = faulty


def local_random_keys():
    """Dropout and augmentation are keyed by the row on the device."""
    from jaxmnist.step import body

    local_sums = body.local_sums
    body.local_sums = lambda task, state, batch, part: local_sums(
        task, state, batch, dataclasses.replace(part, index=0)
    )


def average_one_step_late():
    """The moving average takes the parameters before the update."""
    from jaxmnist.step import body

    apply_update = body.apply_update

    def faulty(task, state, sums):
        new, metrics = apply_update(task, state, sums)
        if task.ema_decay is None:
            return new, metrics
        d = task.ema_decay
        return new.replace(
            ema=jax.tree.map(lambda a, p: d * a + (1 - d) * p, state.ema, state.params)
        ), metrics

    body.apply_update = faulty


def all_reduce_inside_the_accumulation():
    """One reduction for each microbatch."""
    from jaxmnist.step import body

    accumulated = body._accumulated

    def faulty(sums_of, rows, task, axis):
        if axis is None:
            return accumulated(sums_of, rows, task, axis)
        devices = jax.lax.axis_size(axis)

        def reduced(micro):
            return jax.tree.map(lambda x: x / devices, jax.lax.psum(sums_of(micro), axis))

        return accumulated(reduced, rows, task, axis)

    body._accumulated = faulty


def padding_not_masked():
    """The loss of a padded row is left out, but what it holds still flows back as 0 × NaN."""
    from jaxmnist.step import body

    body._masked = lambda images, mask: images


def dropped_remainder():
    """Evaluation leaves out the last, shorter batch."""
    from jaxmnist import pipeline
    from jaxmnist.runs import evaluate

    eval_batches = pipeline.eval_batches

    def faulty(source, *, batch_size, padded_size, rows):
        whole = len(source.labels) // batch_size
        batches = eval_batches(source, batch_size=batch_size, padded_size=padded_size, rows=rows)
        return (batch for number, batch in enumerate(batches) if number < whole)

    pipeline.eval_batches = evaluate.eval_batches = faulty


def double_counted_padding():
    """Padded rows count as examples."""
    from jaxmnist import pipeline

    eval_rows = pipeline.eval_rows

    def faulty(number, **kwargs):
        index, mask = eval_rows(number, **kwargs)
        return index, mask | True

    pipeline.eval_rows = faulty


def resumed_one_batch_late():
    """The batch after the checkpoint is left out."""
    from jaxmnist import pipeline
    from jaxmnist.runs import train

    source = pipeline.BatchSource

    def faulty(split, *, bounds, **kwargs):
        late = bool(bounds[0])
        return source(split, bounds=[step + late for step in bounds], **kwargs)

    pipeline.BatchSource = train.BatchSource = faulty


def process_slices_swapped():
    """Processes read each other's rows."""
    from jaxmnist import pipeline

    rows = pipeline.process_rows
    pipeline.process_rows = lambda batch_size, *, process, processes: rows(
        batch_size, process=processes - 1 - process, processes=processes
    )


def one_order_for_all_epochs():
    """The shuffle forgets the epoch."""
    from jaxmnist import pipeline

    permutation = pipeline.epoch_permutation
    pipeline.epoch_permutation = lambda seed, epoch, examples: permutation(seed, 0, examples)


def decay_of_biases():
    """Weight decay takes from biases too."""
    from jaxmnist.zoo import decay

    decayed = decay.decayed

    def faulty(schedule, weight_decay, *, spare):
        good = decayed(schedule, weight_decay, spare=spare)

        def update(updates, state, params=None):
            rate = schedule(state.count) * weight_decay
            biases = jax.tree.map(lambda p: rate * p * (p.ndim == 1), params)
            updates = jax.tree.map(jnp.subtract, updates, biases)
            return good.update(updates, state, params)

        return type(good)(good.init, update)

    decay.decayed = faulty


def evaluation_of_the_wrong_parameters():
    """The moving average is kept and never used."""
    from jaxmnist.state import TrainState

    TrainState.inference_params = property(lambda self: self.params)


EQUIVALENCE = "tests/proofs/test_equivalence.py::"
MANY = EQUIVALENCE + "test_a_run_is_the_same_on_many_devices"
ORACLE = EQUIVALENCE + "test_a_run_agrees_with_a_second_implementation"
GRADIENT = EQUIVALENCE + "test_the_gradient_of_one_step_counts_each_row_once"
COLLECTIVES = "tests/proofs/test_collectives.py::"
STREAM = "tests/proofs/test_stream.py::"
EXACT = "tests/proofs/test_exact_evaluation.py::"
# The fault, and the shipped proof that has to fail with it.
FAULTS = {
    extra_psum: MANY + "[8-plain-shard_map]",
    missing_reduction: MANY + "[8-plain-pmap]",
    mean_of_means: GRADIENT + "[8-1-pmap]",
    unsynced_batch_norm: MANY + "[8-batch norm-pmap]",
    clipping_before_the_reduction: MANY + "[8-clipping and average-shard_map]",
    local_random_keys: MANY + "[8-dropout and shift-shard_map]",
    average_one_step_late: ORACLE + "[clipping and average]",
    all_reduce_inside_the_accumulation: COLLECTIVES
    + "test_a_step_has_one_all_reduce_of_parameters_and_metrics[8-4-False-shard_map]",
    padding_not_masked: GRADIENT + "[8-1-shard_map]",
    dropped_remainder: EXACT + "test_awkward_sizes[51]",
    double_counted_padding: EXACT + "test_awkward_sizes[49]",
    resumed_one_batch_late: STREAM
    + "test_a_run_is_a_prefix_of_a_longer_run_and_resumes_by_seeking",
    process_slices_swapped: STREAM + "test_processes_read_contiguous_rows_that_make_up_the_batch",
    one_order_for_all_epochs: ORACLE + "[plain]",
    decay_of_biases: ORACLE + "[clipping and average]",
    evaluation_of_the_wrong_parameters: EXACT + "test_the_moving_average_is_what_is_evaluated",
}


def pytest_addoption(parser):
    parser.addoption("--fault", default=None, help="break the library in this way")


def pytest_configure(config):
    name = config.getoption("--fault")
    if name:
        {fault.__name__: fault for fault in FAULTS}[name]()
