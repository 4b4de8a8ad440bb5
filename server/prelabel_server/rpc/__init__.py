"""gRPC: servicers that convert, call, convert."""
