"""YAML in, plan out. Pure and instant: no torch, no ray, no numpy.

    points.py    the nouns: a sweep, its grids, a point
    yaml.py      YAML text -> nodes that know their file and line
    schema.py    what a sweep file may say: the models, their JSON schema, and their errors in our words
    grammar.py   files, profiles and --set -> one resolved, validated Sweep
    feasible.py  which points and evaluations cannot be
    grid.py      Sweep -> grid points
    pipeline.py  grid point -> its chain of stages, each with a key; graph.py holds what they are
    branches.py  what evaluations need beside a point's own set and model; audits.py says what the data allow
    jobs.py      all chains -> jobs; run/schedule.py says which may run now
    sharing.py   what a plan saves because equal stages are one

This file imports nothing.
"""
