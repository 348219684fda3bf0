"""Evaluations: pure functions of stored logits and models. Imports nothing."""
