"""The convolutional cells of DARTS (Liu, Simonyan and Yang, 2019)."""
