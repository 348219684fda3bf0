"""Data sets: from files to what networks are given. Imports nothing.

known.py       the data sets known by name, with their constants; draws of their classes; no torch
layout.py      where the files of a data set lie; no torch, opens nothing
decoding.py    from files to arrays, every layout
cache.py       the arrays in canonical order on the node's disk, and their digests; no torch
pixels.py      what networks see of stored images: normalised, whitened, several of one
origins.py     which images an origin and the queries of a model hold, and their tensors
operations.py  names of the augmentation's operations; no torch
augment.py     the DSA augmentation, IDC's variant of it, CutMix
"""
