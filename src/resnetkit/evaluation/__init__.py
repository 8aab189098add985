"""Evaluation of trained networks: errors, confusions and calibration."""
