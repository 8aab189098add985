"""Published data sets: what they must contain, where they come from, the cache."""
