"""Compiled kernels of the recurrence on the chip; arrays in, arrays out."""
