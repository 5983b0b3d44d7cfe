"""Parts that names of the configuration stand for; the core imports none of them.

A table of dotted paths (`jaxmnist.models.build.MODELS`, `jaxmnist.models.cnn.CONVOLUTIONS`) leads
to them, as a dotted path in a configuration leads to a user's own part.
"""
