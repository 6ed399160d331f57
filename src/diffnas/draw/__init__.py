"""Pictures of cells, without Graphviz and without torch."""

from diffnas.draw.dot import draw_dot
from diffnas.draw.layout import MARGIN, Box, Curve, Layout, family, layout, text_width
from diffnas.draw.progress import draw_progress, write_progress
from diffnas.draw.write import FORMS, draw_pdf, draw_png, draw_row, draw_svg, write_cells

__all__ = [
    "FORMS",
    "MARGIN",
    "Box",
    "Curve",
    "Layout",
    "draw_dot",
    "draw_pdf",
    "draw_png",
    "draw_progress",
    "draw_row",
    "draw_svg",
    "family",
    "layout",
    "text_width",
    "write_cells",
    "write_progress",
]
