"""The command line: the only place that knows absl flags and exit codes."""
