"""Benchmarks with a goal: ours, the limit of the machine and a peer side by side.

Run `python -m benchmarks` from the root of the repository; docs/benchmarks.md explains the rows.
"""
