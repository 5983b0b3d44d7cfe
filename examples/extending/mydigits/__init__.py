"""Parts of one's own for jaxmnist: a model, a data set, a loss and what else can be given."""
