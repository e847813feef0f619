"""The bodies of the commands, apart from their signatures so that help needs none of their imports."""
