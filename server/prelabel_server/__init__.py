"""The prelabel server: transports over use cases over an engine over models.

cli, app        the command line, and the composition root
rpc             gRPC: convert, call, convert
handlers        use cases; no transport, no thread
engine          admission, queue, batches, caches, loaded models
prelabel_models below all of it
"""
