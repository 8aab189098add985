"""Inference: predict the classes of images, compute their features, find similar images."""
