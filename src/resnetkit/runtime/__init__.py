"""Where a process computes: device, precision, process group, memory, environment."""
