"""Infrastructure: devices, checkpoints, signals, files, the console."""
