"""How many kernels a GPU would be asked to launch, counted on the device `meta`, which has shapes and no numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

FREE = {"detach", "lift_fresh", "_unsafe_view", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}
"""What only describes or takes memory, besides views."""
LISTED = {1: 110, 2: 64, 3: 48, 4: 36}
"""Tensors of each list that a kernel for many tensors takes at most, by the number of lists (PyTorch's MultiTensorApply)."""
JOINED = 128  # tensors that one kernel concatenates


class Launches(TorchDispatchMode):
    """Counts by name: each operation is one launch, but those of many tensors as many as they need, and the gradient of a
    convolution one for each gradient that is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found[function.overloadpacket.__name__] += launches(function, args)
        return function(*args, **(kwargs or {}))


def launches(function: Any, args: Any) -> int:
    """How many kernels a call of `function` needs."""
    name, schema = function.overloadpacket.__name__, function._schema
    if name in FREE or any(made.alias_info and not made.alias_info.is_write for made in schema.returns):
        return 0
    if name == "convolution_backward":
        return sum(args[-1])
    lists = [arg for arg in args if isinstance(arg, list | tuple) and arg and isinstance(arg[0], Tensor)]
    if name == "cat":
        return -(-len(lists[0]) // JOINED)
    if not name.startswith("_foreach"):
        return 1
    depth = len(lists) + (not name.endswith("_"))
    return -(-len(lists[0]) // LISTED[depth])
