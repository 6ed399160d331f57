"""The chain of ShuffleNetV2 blocks of SPOS and DSNAS: one op per block."""
