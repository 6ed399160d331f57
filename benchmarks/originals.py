"""The original implementations' search steps against ours, from clones that you made.

    python -m benchmarks.originals --root FOLDER [--only NAME ...] [--rounds N] [--threads N] [--json FILE]

FOLDER holds `darts`, `PC-DARTS` and `DrNAS`; nothing is written there.  Their files are read, changed in memory where a
current PyTorch needs it (see `PATCHES`), and run; on a CPU their calls of `.cuda()` are left out.  Steps take turns in one
process; ours, built first, has told the C library to keep freed memory, which helps theirs too, and is left so.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from benchmarks.build import CLASSES, OurStep, random_images
from benchmarks.measure import Step, arguments, begin, compare, comparison_head, table, write_json
from diffnas.methods.darts import DARTS
from diffnas.methods.drnas import DrNAS
from diffnas.methods.pcdarts import PCDARTS
from diffnas.spaces.darts_cnn.layout import OPS

CHANNELS, LAYERS, BATCH = 16, 8, 16
NB201_CHANNELS, NB201_LAYERS, NB201_BATCH = 16, 5, 64  # as published

CLONES = {
    "darts": "https://github.com/quark0/darts",
    "PC-DARTS": "https://github.com/yuhuixu1993/PC-DARTS",
    "DrNAS": "https://github.com/xiangning-chen/DrNAS",
}

PATCHES = (
    # calls with the factor first are deprecated since PyTorch 1.5
    ("theta.sub(eta, moment+dtheta)", "theta.sub(moment+dtheta, alpha=eta)"),
    ("p.data.add_(R, v)", "p.data.add_(v, alpha=R.item())"),
    ("p.data.sub_(2*R, v)", "p.data.sub_(v, alpha=2*R.item())"),
    ("g.data.sub_(eta, ig.data)", "g.data.sub_(ig.data, alpha=eta)"),
    # gradients need not be contiguous any more
    ("torch.cat([x.view(-1) for x in xs])", "torch.cat([x.reshape(-1) for x in xs])"),
    ("volatile=True", "requires_grad=False"),
)
STUBS = ("torchvision", "torchvision.transforms", "torchvision.datasets", "graphviz")  # imported, not used by a step


# -- theirs


@dataclass(frozen=True)
class TheirStep:
    """Called, it builds the supernet in `folders` of FOLDER/`clone` and returns its search step, as train_search.py has it."""

    root: Path
    clone: str
    folders: tuple[str, ...] = (".",)
    unrolled: bool = False
    partial: int | None = None  # an argument of DrNAS's supernet; PC-DARTS has 4 in its code
    device: str = "cpu"

    def __call__(self) -> Step:
        """The step, on fresh weights."""
        torch.manual_seed(0)
        device = torch.device(self.device)
        with modules_of([self.root / self.clone / folder for folder in self.folders], device):
            supernet = importlib.import_module("model_search").Network
            architect = importlib.import_module("architect").Architect
        criterion = nn.CrossEntropyLoss().to(device)
        extra = {} if self.partial is None else {"k": self.partial}
        net = supernet(CHANNELS, CLASSES, LAYERS, criterion, **extra).to(device)
        settings = argparse.Namespace(
            momentum=0.9,
            weight_decay=3e-4,
            arch_learning_rate=3e-4,
            arch_weight_decay=1e-3,
            reg_type="l2",  # DrNAS
            reg_scale=1e-3,
        )
        learner = architect(net, settings)
        optimizer = torch.optim.SGD(net.parameters(), 0.025, 0.9, weight_decay=3e-4)
        train, valid = (random_images(BATCH, device, channels_last=False) for _ in range(2))

        def step() -> None:
            learner.step(*train, *valid, 0.025, optimizer, unrolled=self.unrolled)
            optimizer.zero_grad()
            criterion(net(train[0]), train[1]).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()

        return step


@dataclass(frozen=True)
class TheirNB201Step:
    """Called, it builds DrNAS's supernet of NAS-Bench-201, by `species` softmax (DARTS) or dirichlet, and its search step."""

    root: Path
    clone: str = "DrNAS"
    species: str = "softmax"
    partial: int = 1
    device: str = "cpu"

    def __call__(self) -> Step:
        """The step, on fresh weights."""
        torch.manual_seed(0)
        device, folder = torch.device(self.device), self.root / self.clone
        with modules_of([folder / "201-space", folder], device):
            supernet = importlib.import_module("search_model").TinyNetwork
            architect = importlib.import_module("architect").Architect
            ops = importlib.import_module("cell_operations").NAS_BENCH_201
        criterion = nn.CrossEntropyLoss().to(device)
        size = {"C": NB201_CHANNELS, "N": NB201_LAYERS, "max_nodes": 4, "num_classes": CLASSES, "k": self.partial}
        net = supernet(criterion=criterion, search_space=ops, species=self.species, **size).to(device)
        settings = argparse.Namespace(
            momentum=0.9,
            weight_decay=3e-4,
            arch_learning_rate=3e-4,
            arch_weight_decay=1e-3,
            reg_type="l2",
            reg_scale=1e-3,
        )
        learner = architect(net, settings)
        optimizer = torch.optim.SGD(net.parameters(), 0.025, 0.9, weight_decay=3e-4)
        train, valid = (random_images(NB201_BATCH, device, channels_last=False) for _ in range(2))

        def step() -> None:
            learner.step(*train, *valid, 0.025, optimizer, unrolled=False)
            optimizer.zero_grad()
            criterion(net(train[0]), train[1]).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()

        return step


@contextlib.contextmanager
def modules_of(
    folders: Sequence[Path], device: torch.device, patches: Sequence[tuple[str, str]] = PATCHES
) -> Iterator[None]:
    """Lets a block import the modules in `folders`, patched; afterwards they are forgotten: each clone has an `operations`."""
    finder = _Finder(folders, patches if device.type == "cuda" else (*patches, (".cuda()", "")))
    names = [path.stem for folder in folders for path in folder.glob("*.py")]
    names += [name for name in STUBS if importlib.util.find_spec(name.partition(".")[0]) is None]
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    _stub([name for name in names if name in STUBS])
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _stub(names: Sequence[str]) -> None:
    """Puts empty modules in the place of packages that are absent; a parent comes before its parts."""
    for name in names:
        sys.modules[name] = ModuleType(name)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])


class _Finder:
    """Finds modules in `folders`, the first that has it."""

    def __init__(self, folders: Sequence[Path], patches: Sequence[tuple[str, str]]) -> None:
        self.folders, self.patches = folders, patches

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's spec, None where no folder has the file."""
        for folder in self.folders:
            file = folder / f"{name}.py"
            if file.is_file():
                return importlib.util.spec_from_file_location(name, file, loader=_Loader(name, file, self.patches))
        return None


class _Loader(importlib.machinery.SourceFileLoader):
    """Reads a file, patches the text, and compiles that; no bytecode is read or written."""

    def __init__(self, name: str, file: Path, patches: Sequence[tuple[str, str]]) -> None:
        super().__init__(name, str(file))
        self.patches = patches

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        """The code of the patched text."""
        text = Path(self.path).read_text(encoding="utf-8")
        for old, new in self.patches:
            text = text.replace(old, new)
        return self.source_to_code(text.encode(), self.path)


# -- the cases

OURS = OurStep(channels=CHANNELS, layers=LAYERS, batch=BATCH)
SEVEN = replace(OURS, ops=OPS[1:], method=DrNAS())  # DrNAS leaves `none` out
SPACE = ("DARTS-space", ".")
NB201 = replace(OURS, space="nasbench201", channels=NB201_CHANNELS, layers=NB201_LAYERS, batch=NB201_BATCH)
CASES: dict[str, tuple[Callable[[Path], TheirStep | TheirNB201Step], OurStep]] = {
    "darts-first": (lambda root: TheirStep(root, "darts", ("cnn",)), OURS),
    "darts-second": (
        lambda root: TheirStep(root, "darts", ("cnn",), unrolled=True),
        replace(OURS, method=DARTS(unrolled=True)),
    ),
    "pc-darts": (lambda root: TheirStep(root, "PC-DARTS"), replace(OURS, partial=4, method=PCDARTS())),
    "drnas-k1": (lambda root: TheirStep(root, "DrNAS", SPACE, partial=1), SEVEN),
    "drnas-k4": (lambda root: TheirStep(root, "DrNAS", SPACE, partial=4), replace(SEVEN, partial=4)),
    "nb201-darts": (TheirNB201Step, NB201),
    "nb201-drnas": (lambda root: TheirNB201Step(root, species="dirichlet"), replace(NB201, method=DrNAS())),
    "nb201-drnas-k4": (
        lambda root: TheirNB201Step(root, species="dirichlet", partial=4),
        replace(NB201, method=DrNAS(), partial=4),
    ),
}


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = arguments("The original implementations' search steps against ours.", rounds=5)
    parser.add_argument("--root", type=Path, required=True, help=f"the folder of the clones {', '.join(CLONES)}")
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="NAME", help=f"of {', '.join(CASES)}")
    args = parser.parse_args()
    if not args.root.is_dir():
        print(f"--root {args.root}: is not a folder; make it and clone into it: {', '.join(CLONES.values())}")
        return 2
    device = begin(args)
    nb201 = f"of NAS-Bench-201 C={NB201_CHANNELS} N={NB201_LAYERS} batch {NB201_BATCH}"
    sizes = f"C={CHANNELS} L={LAYERS} batch {BATCH}; {nb201}; 32x32"
    print(f"one architecture and one weight step, {sizes}\n", flush=True)
    found = []
    for name in args.only or CASES:
        build, ours = CASES[name]
        theirs = replace(build(args.root), device=str(device))
        if not (args.root / theirs.clone).is_dir():
            url = CLONES[theirs.clone]
            print(f"{name}: skipped; get it with: git clone {url} {args.root / theirs.clone}", flush=True)
            continue
        found.append(compare(name, theirs, replace(ours, device=str(device)), args.rounds, device))
        print(found[-1].line("theirs", f"{name}: ours"), flush=True)
    if found:
        print("\n" + table(comparison_head("original", "theirs", "ours"), [each.row() for each in found]))
    write_json(args.json, device, {"comparisons": [each.record() for each in found]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
