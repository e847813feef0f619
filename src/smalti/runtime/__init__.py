"""Runtime: device, distributed training, random numbers, hashing, pixel formats."""
