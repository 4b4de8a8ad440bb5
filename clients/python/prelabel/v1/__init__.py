"""Generated from proto/prelabel/v1 by proto/generate.py: do not edit."""
