"""The search spaces, by the name recipes use; each is a folder with the same file names."""

from __future__ import annotations

from typing import Any

SPACES: dict[str, Any] = {
    "darts-cnn": "diffnas.spaces.darts_cnn.space:DartsCNN",
    "darts-rnn": "diffnas.spaces.darts_rnn.space:DartsRNN",
    "nasbench201": "diffnas.spaces.nasbench201.space:NASBench201",
    "shufflenet-blocks": "diffnas.spaces.shufflenet_blocks.space:ShuffleNetBlocks",
}
