"""Hackathons: pack what a team has, check and score what strangers send, without running a line of their code."""
