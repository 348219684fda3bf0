"""From a sweep file to stages with keys, and jobs. Pure and instant: no torch, no ray, no numpy.

What is computed of anything:

    keys.py         what a key is made of
    shares.py       the share of a card for so much memory
    kinds.py        one record per stage kind

What a file says:

    yaml.py         YAML text -> nodes that know their file and line
    annotations.py  how one value is read
    axes.py         one record per axis: type, default, who uses it, where it is shown
    points.py       a sweep, its grids, a point
    schema.py       the models of a sweep file, and the JSON schema made from them
    problems.py     what a model does not accept, in our words
    sources.py      the files of one sweep, and --set: read and checked one by one
    grammar.py      files, profiles and --set -> one resolved Sweep
    audits.py       which membership audits the data of a point allow
    feasible.py     which points and evaluations cannot be: a table of rules
    grid.py         Sweep -> grid points; filters on points
    controls.py     sets with a teacher's labels whose control is missing
    splits.py       points that grids share until --set changes one of the grids
    datasets.py     what is known of the data sets: constants, class sizes, content digest

What is computed for it:

    graph.py        a stage, a chain
    imported.py     the stage of a set or model that ddray did not make
    resolve.py      point -> completed configurations
    sets.py         how a point's set and model are made; labels
    shadows.py      what the membership audits need beside them
    maps.py         encoders and maps of several sets
    chains.py       point -> its chain of stages
    jobs.py         all chains -> jobs; run/schedule.py says which may run now
    summary.py      a plan as people and programs see it, with what equal stages save

This file imports nothing.
"""
