"""Membership inference: attacks, their metrics, and the stage that runs them. Imports nothing."""
