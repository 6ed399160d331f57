"""The constants of the space, and what a language model drops."""

from __future__ import annotations

from dataclasses import dataclass

OPS = ("none", "tanh", "relu", "sigmoid", "identity")
KIND = "recurrent"


@dataclass(frozen=True)
class Dropouts:
    """The probabilities with which a language model drops numbers while it trains; the names are the authors'."""

    dropout: float = 0.75  # of the output, for the whole window at once
    dropouth: float = 0.25  # of what every node reads, likewise
    dropoutx: float = 0.75  # of the cell's input, likewise
    dropouti: float = 0.2  # of the embedded words, likewise
    dropoute: float = 0.1  # of words, whole rows of the embedding
