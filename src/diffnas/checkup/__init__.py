"""`diffnas doctor`: what is installed, what computes here, and what does not."""
