"""Fast arithmetic that supernets are built from: plain torch operations, exact to rounding; imports nothing of ours."""
