"""gRPC servers side by side: the same echo, the same load, in turns. `python -m bench.transport`."""
