"""Detectors: methods that tell fakes from reals, one file each. They know nothing of generators, files or the arena."""
