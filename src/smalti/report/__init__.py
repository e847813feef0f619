"""Records of measurements, their comparison, pages, charts and pictures."""
