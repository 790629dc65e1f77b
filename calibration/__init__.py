"""Measured data to device models.

The package starts small: fits of programming, drift, relaxation and noise come in later versions.
"""
