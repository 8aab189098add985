"""The runtime of a process: device, precision, process group, memory, environment."""
