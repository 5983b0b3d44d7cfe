"""Plans a run on hardware that is not here: compiles its step ahead of time, predicts the rest."""

from jaxmnist.plan.make import Plan as Plan
from jaxmnist.plan.make import plan as plan
