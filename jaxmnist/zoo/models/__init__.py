"""Models that ship beside the default one; `jaxmnist.models.build.MODELS` names them."""
