"""Carries a plan out.

sweep.py      `ddray sweep`: data, plan, executor, tables, mirror, summary, exit code
schedule.py   which jobs may run now, in which order
outcomes.py   what the outcome of a job means for the others
local.py      one job at a time, in this process
tune.py       Ray Tune: a searcher that admits jobs, a trainable that runs them
cluster.py    the Ray that jobs run on, from its start to its end
ledger.py     which GPUs and CPUs are free: what may be admitted
stage.py      run_stage: the one path that every executor shares
importing.py  a file that ddray did not make -> the store, as the artifact of a finished stage
context.py    what a running stage sees: progress, checkpoints, the request to stop
board.py      where running jobs say how far they are and hear that they should stop
signals.py    INT, TERM and HUP: a gentle stop while jobs run, else an end at once
progress.py   what became of each job, and the time that is left
display.py    the live table of it
status.py     the same in a file, for `ddray status` elsewhere, and how the run ended
"""
