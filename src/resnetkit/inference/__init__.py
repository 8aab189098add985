"""A trained network put to use: images in, ranked labels, features or the nearest images out."""
