"""Feature extractors, their cache, and clustering by features."""
