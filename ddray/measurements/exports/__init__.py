"""Tables beside the measurements: built on request, from the store, without torch.

    samples.py   samples/DATASET/METHOD.parquet: what every model said of every example
    maps.py      embeddings.parquet: the points of t-SNE maps
    files.py     artifacts.parquet: the files of all artifacts
    opened.py    single files of artifacts, checked

This file imports nothing.
"""
