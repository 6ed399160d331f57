"""What every program needs and no paper mentions: devices, checkpoints, signals, the console."""
