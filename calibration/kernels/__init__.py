"""Compiled likelihoods: arrays and scalars in, arrays out."""
