"""Losses by name. The keys of the tables are words of the file format: never renamed."""
