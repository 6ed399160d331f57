"""The search spaces, by the name recipes use; each is a folder with the same file names."""

SPACES = {
    "darts-cnn": "diffnas.spaces.darts_cnn.space:DartsCNN",
}
