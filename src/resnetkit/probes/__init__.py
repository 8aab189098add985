"""What happens inside a network: each probe is a function that looks and changes nothing.

A probed network gives the same outputs and gradients, to the bit, as one that was never probed:
mode, gradients, weights and running statistics are as they were afterwards.
"""
