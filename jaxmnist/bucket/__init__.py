"""Work directories in an object store: a mirror on this machine, kept equal to the bucket."""
