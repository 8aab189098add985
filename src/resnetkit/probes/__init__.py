"""Probes: functions that measure what happens inside a network and change nothing.

After a probe, mode, gradients, weights and running statistics are what they were before, so that
the network gives the same outputs and gradients to the bit.
"""
