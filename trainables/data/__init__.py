"""Data sets: from files to what networks are given. Imports nothing.

known.py     the data sets known by name, with their constants; draws of their classes; no torch
layout.py    where the files of a data set lie, and where their decoded images; no torch, opens no image
decoding.py  from files to arrays, every layout; canonical order
groups.py    data sets with a group beside the class, made of others; no torch
cache.py     the arrays on the node's disk, and their digests; no torch
pixels.py    what networks see of stored images: normalised, whitened, several of one
origins.py   which images an origin and the queries of a model hold, and their tensors
augment.py   the DSA augmentation, IDC's variant of it, CutMix
"""
