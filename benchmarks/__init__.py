"""Benchmarks: each prints its figures; none is a test. ``python -m benchmarks.run`` runs them all."""
