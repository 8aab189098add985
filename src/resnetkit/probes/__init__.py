"""Probes: functions that measure what happens inside a network and change nothing.

A probe restores mode, gradients, weights and running statistics, so that the network afterwards
gives the same outputs and gradients to the bit.
"""
