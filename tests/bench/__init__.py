"""Benchmarks: each compares with a peer or a physical limit in the same run and prints ratios.

Nothing here asserts on wall time. `python -m tests.bench [NAME...]` runs them and prints JSON lines.
"""
