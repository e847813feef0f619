"""Settings: frozen dataclasses, presets, parsing. Imports no torch."""
