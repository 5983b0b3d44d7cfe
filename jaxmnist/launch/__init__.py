"""Starts a training run as several processes: on this machine, on TPU VMs, under Slurm."""
