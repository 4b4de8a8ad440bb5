"""Segmentation without downloaded weights: a fitted superpixel graph, and GrabCut."""

from prelabel_models.segmenters.classical.grabcut import GrabCutSegmenter
from prelabel_models.segmenters.classical.segmenter import ClassicalSegmenter

__all__ = ["ClassicalSegmenter", "GrabCutSegmenter"]
