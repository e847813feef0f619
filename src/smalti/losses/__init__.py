"""Loss functions and tables of losses by name. The keys of the tables are part of the file format: never renamed."""
