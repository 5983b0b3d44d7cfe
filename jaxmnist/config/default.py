"""Every key of the configuration: what it is, its default, and what it accepts.

This table is the reference and the only place where a key is written down: the line above a key
says what it does, the line itself its default and its rule. Config files hold what differs.
"""

from typing import Final

from jaxmnist.config import rules
from jaxmnist.config.rules import Key, Rule, choice, or_none

KEYS: Final = {
    #: Seed of everything random: initial parameters, data order, augmentation, dropout.
    "seed": Key(0, Rule(int, "an integer in 0..4294967295", lambda v: 0 <= v < 2**32)),
    #: Examples in one optimizer step, over all devices and processes.
    "batch_size": Key(256, rules.SIZE),
    #: Length of training in passes over the train set; a fraction is allowed.
    #: Exactly one of epochs, steps and examples is set; the other two are None.
    "train.epochs": Key(5, or_none(rules.EPOCHS), "0.5"),
    #: Length of training in optimizer steps.
    "train.steps": Key(None, or_none(rules.SIZE), "60"),
    #: Length of training in examples, rounded up to whole steps.
    "train.examples": Key(None, or_none(rules.SIZE), "100000"),
    #: Microbatches that a step adds up before it updates: less memory, the same result.
    "train.accumulate": Key(1, rules.SIZE),
    #: Most steps in one call of the compiled program: more than 1 spares the host and changes no
    #: bit; callbacks and signals wait for its end. None chooses: up to 20, of 5,120 examples in
    #: all, on CPUs with Winograd's convolution and no callbacks; else 1.
    "train.steps_per_call": Key(None, or_none(rules.SIZE), "16"),
    #: Decay of an exponential moving average of the parameters; None keeps none.
    "train.ema_decay": Key(None, or_none(rules.DECAY), "0.999"),
    #: Share of the target probability that is spread evenly over all classes.
    "train.label_smoothing": Key(0.0, Rule(float, "a number in [0, 1)", lambda v: 0 <= v < 1)),
    #: Work directory of a run from whose last parameters this one starts; None draws fresh ones.
    "train.init_from": Key(None, or_none(rules.TEXT), "'runs/pretrained'"),
    #: Name of the loss: cross_entropy, or 'package.module:function' of your own.
    "loss.name": Key("cross_entropy", rules.TEXT),
    #: Arguments of the loss; free keys.
    "loss.kwargs": Key({}, rules.FREE, "{'gamma': 2.0}"),
    #: How the step is spread over the devices: the same training by three mechanisms of JAX.
    "parallel.strategy": Key("shard_map", choice("shard_map", "pmap", "jit")),
    #: Use only the first so many devices; None uses all.
    "parallel.devices": Key(None, or_none(rules.SIZE), "2"),
    #: How many CPU devices to create, and train on, even beside an accelerator; None chooses by the
    #: usable cores and the batch where there is no accelerator.
    "parallel.cpu_devices": Key(None, or_none(rules.SIZE), "8"),
    #: Make the result equal bit for bit on 1, 2, 4 and 8 devices; slower; needs shard_map.
    "parallel.deterministic": Key(False, rules.FLAG),
    #: Precision of matrix products and convolutions in float32: 'highest' gives the same result
    #: everywhere; the others are faster on accelerators (TF32, bfloat16).
    "parallel.matmul_precision": Key("highest", choice("default", "high", "highest")),
    #: Name of the data set: one that is known, or one that was registered.
    "dataset.name": Key("mnist", rules.TEXT),
    #: What to read instead, it wins over the name: a directory with four IDX files, gzipped or not,
    #: or with class folders of pictures (train/cat/1.png), or an .npz file of arrays.
    "dataset.dir": Key(None, or_none(rules.TEXT), "'data/digits'"),
    #: Number of classes; None takes the largest train label plus one.
    "dataset.classes": Key(None, or_none(rules.SIZE), "10"),
    #: Examples held out of the train set, drawn by the seed; the best checkpoint is chosen on them.
    "dataset.validation": Key(0, rules.COUNT),
    #: Name of the model: cnn, mlp, simple_cnn, resnet, or 'package.module:Class' of your own.
    "model.name": Key("cnn", rules.TEXT),
    #: Arguments of the model; free keys.
    "model.kwargs": Key({}, rules.FREE, "{'dropout': 0.1}"),
    #: How 3x3 convolutions are computed; 'auto' takes what is fastest on the devices.
    "model.conv": Key("auto", choice("auto", "xla", "winograd")),
    #: Type in which the model computes; parameters are always float32.
    "model.dtype": Key("float32", choice("float32", "bfloat16")),
    #: Name of the optimizer: one that is known, or one that was registered.
    "optimizer.name": Key("adam", rules.TEXT),
    #: Highest learning rate; the schedule scales it.
    "optimizer.learning_rate": Key(4e-3, rules.RATE),
    #: Decoupled weight decay, multiplied by the learning rate of the step.
    "optimizer.weight_decay": Key(0.0, Rule(float, "a number >= 0", lambda v: 0 <= v < 1e99)),
    #: Norm to which a longer gradient (of all parameters together) is cut; None does not cut.
    "optimizer.clip_norm": Key(None, or_none(rules.RATE), "1.0"),
    #: Arguments of the optimizer; free keys.
    "optimizer.kwargs": Key({}, rules.FREE, "{'b1': 0.9}"),
    #: Patterns of parameters that do not decay, joined by commas; biases and scales never do.
    "optimizer.no_decay": Key(None, or_none(rules.TEXT), "'Embed_*/*,Dense_0/kernel'"),
    #: Name of the schedule that scales the learning rate over the training.
    "schedule.name": Key("one_cycle", rules.TEXT),
    #: Arguments of the schedule; free keys.
    "schedule.kwargs": Key({}, rules.FREE, "{'end': 0.01}"),
    #: Shift each train image by up to so many pixels, in both directions; 0 does not.
    "augment.shift": Key(0, rules.COUNT),
    #: Turn each train image by up to so many degrees, either way; 0 does not.
    "augment.rotation": Key(0.0, Rule(float, "degrees in 0..180", lambda v: 0 <= v <= 180), "10"),
    #: Scale each train image by up to 1 + this, larger or smaller; 0 does not.
    "augment.scale": Key(0.0, Rule(float, "a number in [0, 1]", lambda v: 0 <= v <= 1), "0.1"),
    #: Slant each train image by up to so many degrees, either way; 0 does not.
    "augment.shear": Key(0.0, Rule(float, "degrees in 0..45", lambda v: 0 <= v <= 45), "10"),
    #: Blank a square of so many pixels a side in each train image; 0 does not.
    "augment.cutout": Key(0, rules.COUNT),
    #: Your own augmentation, after those above: 'package.module:function' of (images, keys).
    "augment.custom": Key(None, or_none(rules.TEXT), "'my_package.augment:blur'"),
    #: Arguments of your own augmentation; free keys.
    "augment.kwargs": Key({}, rules.FREE, "{'amount': 0.5}"),
    #: Your own callbacks, classes or objects as 'package.module:name', joined by commas.
    "callbacks": Key(None, or_none(rules.TEXT), "'my_package.callbacks:Diary'"),
    #: Whether the train set lies on the devices; 'auto' puts it on accelerators with room for it.
    "pipeline.resident": Key("auto", choice("auto", "on", "off")),
    #: How often a checkpoint is saved (a duration); the last step is always saved.
    "checkpoint.every": Key("1 epochs", rules.DURATION),
    #: How many of the latest checkpoints are kept.
    "checkpoint.keep": Key(3, rules.SIZE),
    #: How often the train metrics are read from the devices and written (a duration).
    "log.every": Key(20, rules.DURATION),
    #: Where metrics go besides metrics.jsonl: names or 'package.module:Class', commas between them.
    "log.writers": Key("tensorboard", or_none(rules.TEXT), "tensorboard,my_package.writers:Mine"),
    #: Examples in one batch of evaluation, over all devices; no result depends on it.
    "eval.batch_size": Key(1000, rules.SIZE),
    #: How often the model is evaluated during training (a duration).
    "eval.every": Key("1 epochs", rules.DURATION),
    #: Seconds without a finished step or batch of evaluation after which a process prints where it
    #: stands and exits with an error, to be started again; None waits for ever.
    "watchdog.timeout": Key(600.0, or_none(rules.RATE), "1800"),
}
