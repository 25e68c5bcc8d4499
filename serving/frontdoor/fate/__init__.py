"""FATE-Serving's protocols, for callers and for FATE-Flow: what it speaks, over the same pipeline and publishing."""
