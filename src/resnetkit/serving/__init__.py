"""Serving: a trained network behind HTTP, in one process with bounded stages."""
