"""The training loop: data feeding, checkpointing, logging and stopping."""
