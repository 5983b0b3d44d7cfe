"""The train step and the evaluation step: one body, three ways to run it on many devices."""

from jaxmnist.step.body import Batch as Batch
from jaxmnist.step.body import Indexed as Indexed
from jaxmnist.step.body import Several as Several
from jaxmnist.step.body import Step as Step
from jaxmnist.step.body import Task as Task
from jaxmnist.step.strategies import make_eval_step as make_eval_step
from jaxmnist.step.strategies import make_train_step as make_train_step
from jaxmnist.step.strategies import place_batch as place_batch
