"""The machine a program runs on: device, processes, random numbers, pixels."""
