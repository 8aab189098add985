"""Recipes, runs, checkpoints and the training loop."""
