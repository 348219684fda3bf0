"""Data sets in canonical order, origins, and the DSA augmentation. Imports nothing."""
