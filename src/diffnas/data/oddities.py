"""Warnings about a set of images before it is trained on."""

from __future__ import annotations

from torch import Tensor

ALIKE = 1.0  # levels of 255 by which images differ at a place, on average, at the least
MOST = 256  # images that are looked at
ROOM = 2**25  # values that are looked at


def oddities(what: str, pixels: Tensor, beyond: int = 0) -> list[str]:
    """Lines on images uint8 [M, C, H, W], called `what`: that they are all alike, lack a channel, or are cut off.

    `beyond` of them hold values that the scale of the training images does not.  Some images stand for a large set.
    """
    lines = (
        [f"{what} are scaled as in the training; {beyond:,} of them hold values beyond, and are cut off"]
        if beyond
        else []
    )
    if len(pixels) < 2:
        return lines
    count = min(MOST, max(2, ROOM // pixels[0].numel()))
    some = pixels[:: -(-len(pixels) // count)].float()
    if float(some.std(dim=0, correction=0).mean()) < ALIKE:
        return [*lines, f"{what} are the same, or nearly so; are they what they should be?"]
    names = ("red", "green", "blue") if some.shape[1] == 3 else ("grey",)
    low, high = some.amin(dim=(0, 2, 3)).tolist(), some.amax(dim=(0, 2, 3)).tolist()
    flat = [name for name, least, most in zip(names, low, high, strict=True) if least == most]
    return [*lines, f"{what} have one and the same value of {' and '.join(flat)}"] if flat else lines
