"""The cells of NAS-Bench-201 (Dong and Yang, 2020), which NATS-Bench calls its topology space."""
