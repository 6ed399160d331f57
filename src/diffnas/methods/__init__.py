"""The methods, by the name recipes use; each is one file that reads like its paper's algorithm."""

from __future__ import annotations

from typing import Any

from diffnas.core.settings import class_at

METHODS: dict[str, Any] = {
    "darts": "diffnas.methods.darts:DARTS",
    "drnas": "diffnas.methods.drnas:DrNAS",
    "pcdarts": "diffnas.methods.pcdarts:PCDARTS",
    "pdarts": "diffnas.methods.pdarts:PDARTS",
    "beta-darts": "diffnas.methods.beta_darts:BetaDARTS",
    "darts-minus": "diffnas.methods.darts_minus:DARTSMinus",
    "darts-plus": "diffnas.methods.darts_plus:DARTSPlus",
    "fairdarts": "diffnas.methods.fairdarts:FairDARTS",
    "mmrazor-darts": "diffnas.methods.mmrazor_darts:MMRazorDARTS",
    "sgas": "diffnas.methods.sgas:SGAS",
    "dsnas": "diffnas.methods.dsnas:DSNAS",
    "enas": "diffnas.methods.enas:ENAS",
    "gdas": "diffnas.methods.gdas:GDAS",
    "rsws": "diffnas.methods.rsws:RSWS",
    "snas": "diffnas.methods.snas:SNAS",
    "smooth-darts": "diffnas.methods.smooth_darts:SmoothDARTS",
    "darts-pt": "diffnas.methods.darts_pt:DARTSPT",
    "robust-darts": "diffnas.methods.robust_darts:RobustDARTS",
    "budget": "diffnas.methods.budget:Budget",
}
"""A class, as plug-ins register it, or where it is: `module:class`."""


def method_class(name: str) -> Any:
    """The class of the method of that name; raises `KeyError` for another name."""
    return class_at(METHODS[name])
