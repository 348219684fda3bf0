"""Carries a plan out.

stage.py      run_stage: the one path that every executor shares
context.py    what a running stage sees: progress, checkpoints, the request to stop
board.py      where running jobs say how far they are and hear that they should stop
schedule.py   which jobs may run now, in which order, and what their outcomes do to the others
ledger.py     which GPUs and CPUs are free: what may be admitted
local.py      one job at a time, in this process
signals.py    INT, TERM and HUP: a gentle stop while jobs run, else an end at once
cluster.py    the Ray that jobs run on, from its start to its end
tune.py       Ray Tune: a searcher that admits jobs, a trainable that runs them
progress.py   the live table
sweep.py      everything around it: data, plan, executor, tables, summary, exit code
"""
