"""Architectures and networks in pure torch; of this package, only the errors are imported."""
