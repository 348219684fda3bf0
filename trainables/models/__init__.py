"""The networks. Imports nothing; see ``build.py``."""
