"""Readers of runs that pass their numbers on to trackers; training knows nothing of them."""
