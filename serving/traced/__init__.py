"""What a node's parts are wrapped in when it sends traces; without traces they stay as they are.

Calls that run together have their steps in the trace of the first of them that is traced; the spans of the others link
to it.
"""
