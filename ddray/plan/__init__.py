"""YAML in, plan out. Pure and instant: no torch, no ray, no numpy.

    fields.py    YAML text -> nodes that know their file and line
    schema.py    what a sweep file may say: the models, their JSON schema, and their errors in our words
    grammar.py   files, profiles and --set -> one resolved, validated Sweep
    grid.py      Sweep -> grid points

This file imports nothing.
"""
