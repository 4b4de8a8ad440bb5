"""Models for pre-labeling: cards, weights by digest, ONNX sessions, detector families.

Numpy, OpenCV and ONNX Runtime only. Nothing here knows a wire protocol or the server.
"""
