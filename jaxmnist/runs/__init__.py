"""The stories of the library, each told from top to bottom."""
