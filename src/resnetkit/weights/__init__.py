"""Trained networks in files of many formats, one module a format; no file's code ever runs."""
