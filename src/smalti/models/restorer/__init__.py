"""Networks that restore degraded images."""
