"""The methods, by the name recipes use; each is one file that reads like its paper's algorithm."""

METHODS = {
    "darts": "diffnas.methods.darts:DARTS",
}
