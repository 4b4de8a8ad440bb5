"""The engine: bounded queue, workers, caches, loaded models. Knows no protocol."""
