"""Tells what this machine offers: versions, devices, memory."""

import os
from typing import Any

import jax

from jaxmnist.mesh import usable_cores
from jaxmnist.runs.result import versions


def info() -> dict[str, dict[str, Any]]:
    """Versions, devices by number, and host, each a dictionary of plain values."""
    devices = {}
    for device in jax.devices():
        text = f"{device.device_kind} ({device.platform})"
        if stats := device.memory_stats():
            used, limit = stats["bytes_in_use"] / 1e9, stats["bytes_limit"] / 1e9
            text += f", {used:.1f} of {limit:.1f} GB in use"
        devices[str(device.id)] = text
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    host = {"usable cores": usable_cores(), "memory": f"{memory / 1e9:.1f} GB"}
    return {"version": dict(versions()), "device": devices, "host": host}
