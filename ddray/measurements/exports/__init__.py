"""Tables beside the measurements: built on request, from the store, without torch.

    artifact_files.py  single files of artifacts, checked; and tables that replace old ones
    samples.py         samples/DATASET/METHOD.parquet: what every model says of every example
    maps.py            embeddings.parquet: the points of t-SNE maps
    artifacts.py       artifacts.parquet: the files of all artifacts
    picture.py         distilled sets as pictures

This file imports nothing.
"""
