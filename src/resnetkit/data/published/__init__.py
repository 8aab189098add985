"""Published data sets: their expected content, their sources and their cache."""
