"""Pictures of cells, without Graphviz and without torch."""

from diffnas.draw.layout import MARGIN, Box, Curve, Layout, family, layout, text_width
from diffnas.draw.progress import draw_progress, write_progress
from diffnas.draw.write import draw_pdf, draw_png, draw_svg, write_cells

__all__ = [
    "MARGIN",
    "Box",
    "Curve",
    "Layout",
    "draw_pdf",
    "draw_png",
    "draw_progress",
    "draw_svg",
    "family",
    "layout",
    "text_width",
    "write_cells",
    "write_progress",
]
