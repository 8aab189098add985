"""Trained networks in files of many formats, a module for each; no code in a file is ever run."""
