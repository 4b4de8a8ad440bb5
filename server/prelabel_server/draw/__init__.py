"""Pictures for people: proposals drawn into their image."""

from prelabel_server.draw.palette import class_colors
from prelabel_server.draw.proposals import Pen, draw_proposals
from prelabel_server.draw.reading import draw_reading

__all__ = ["Pen", "class_colors", "draw_proposals", "draw_reading"]
