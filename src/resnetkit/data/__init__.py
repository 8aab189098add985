"""Data sets, custom images, augmentation and loading; independent of the models."""
