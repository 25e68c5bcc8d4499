"""A load generator for gRPC: open loop with intended send times, closed loop, HdrHistogram percentiles, JSON results.

`await load(Plan(...))` runs a plan in processes of its own; `python -m bench.load --help` is the same for a terminal.
"""

from bench.load.plan import Factory, Plan, PlanError
from bench.load.processes import LoadError, load, load_now
from bench.load.results import LoadResult, Percentiles, Slice

__all__ = ["Factory", "LoadError", "LoadResult", "Percentiles", "Plan", "PlanError", "Slice", "load", "load_now"]
