"""Other ways to train the same network, each a worker process of its own."""
