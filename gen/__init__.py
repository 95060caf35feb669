"""Generators: methods that make fakes, one file each. They know nothing of detectors, files or the arena."""
