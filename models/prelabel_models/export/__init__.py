"""From checkpoints to ONNX graphs that the families run. Needs the extra `export`.

Nothing else in the project imports PyTorch, and what is exported needs it no more.
"""

from prelabel_models.export.sam import ExportReport, export_sam

__all__ = ["ExportReport", "export_sam"]
