"""What exists: artifacts of finished stages by key, checkpoints, failures, claims. Standard library only.

files.py        a folder on disk, or (for a URL) an object store through fsspec
manifest.py     what an artifact says of itself
checkpoints.py  unfinished state of a stage, by lineage
witness.py      a file by which machines find out that they see the same store
claims.py       who is computing what right now; only saves double work, correctness does not need it
artifacts.py    the store: has, open (digests verified), commit (manifest last), failures, quarantine
"""
