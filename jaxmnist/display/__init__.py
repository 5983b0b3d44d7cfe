"""What a person sees of a run, in a terminal, a pipe or a log; the core does not import it."""
