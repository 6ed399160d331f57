"""The constants of the space."""

from __future__ import annotations

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
AUXILIARY = "auxiliary_skip"  # an identity that supernets may hold (DARTS-) and that is never derived
KIND = "cell"
STAGES = 3  # of a network, each of twice the channels and half the side of the one before
NODES = 3  # besides the input; every node reads every earlier state
