"""Chips and weights of other simulators, and back: what has no counterpart is listed."""
