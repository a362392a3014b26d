"""Readers of recorded speech and of the corpus."""
