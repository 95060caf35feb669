"""The arena: plays generators against detectors round by round, keeps the ledger, scores and reports."""

__version__ = "0.1.0"
