"""What the commands do that have more to do than to call one function.

    gantt.py       the chart of a simulated sweep
    calibrate.py   what a sweep's stages take here, from a few steps of each
    plan.py        the plan against what the store holds
    evaluate.py    import a distilled set or a trained model, then its evaluations
    preset.py      published settings of a method, each with its source
    report.py      the report on the terminal and in other formats
    diff.py        what two results say differently
    export.py      distilled sets as files for other programs
    query.py       one SELECT over the measurements
    status.py      what runs, how the last run ended, how to go on
    failures.py    what failed, by cause
    names.py       what people call stages and points
    browse.py      what is behind a key or a name, one failed stage again
    machine.py     what the system tells of itself: file systems, limits, ports
    doctor.py      is this machine fit
    new.py         a package that adds a method, to start from
    ui.py          MLflow on the results

This file imports nothing.
"""
