"""The questions of studies, one module for each."""
