"""A training step of an evaluation network (DARTS-V2, C=36, L=20): as torch would run it, and as the pipeline does.

python -m benchmarks.train [--rounds N] [--threads N] [--device D] [--json FILE]
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

import diffnas
from benchmarks.build import CLASSES, random_images
from benchmarks.measure import Step, arguments, begin, compare, comparison_head, table, write_json
from diffnas.core.batch import Batch
from diffnas.runtime.device import PRECISIONS, place
from diffnas.tasks.classification import Classification


@dataclass(frozen=True)
class TrainStep:
    """Called, it builds the network and returns its training step; `placed`: in channels_last, as the pipeline has it."""

    placed: bool
    genotype: str = "darts-v2"
    channels: int = 36
    layers: int = 20
    batch: int = 8
    drop_path: float = 0.2
    device: str = "cpu"
    precision: str = "float32"

    def __call__(self) -> Step:
        """The step, on fresh weights."""
        torch.manual_seed(0)
        device = torch.device(self.device)
        network = diffnas.build_network(
            self.genotype,
            channels=self.channels,
            layers=self.layers,
            classes=CLASSES,
            auxiliary=True,
            drop_path=True,
        )
        network = place(network, device) if self.placed else network.to(device)
        network.get_buffer("drop_path").fill_(self.drop_path)
        weights = list(network.parameters())
        optimizer = torch.optim.SGD(weights, 0.025, 0.9, weight_decay=3e-4, foreach=True)
        task, batch = Classification(), Batch(*random_images(self.batch, device, channels_last=self.placed))
        precision = PRECISIONS[self.precision]

        def step() -> None:
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                loss = task.loss(network, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.total().backward()
            torch.nn.utils.clip_grad_norm_(weights, 5.0, foreach=True)
            optimizer.step()

        return step


def main() -> None:
    """Measures and prints."""
    args = arguments("Seconds and memory of a training step.", rounds=5).parse_args()
    device = begin(args)
    ours = TrainStep(placed=True, device=str(device))
    name = f"{ours.genotype} C={ours.channels} L={ours.layers} batch {ours.batch}"
    found = compare(name, replace(ours, placed=False), ours, args.rounds, device)
    print(table(comparison_head("training step", "NCHW", "placed"), [found.row()]))
    write_json(args.json, device, {"comparisons": [found.record()]})
    print(f"\n{found.line('NCHW', 'placed')}")


if __name__ == "__main__":
    main()
