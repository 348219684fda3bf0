"""Carries a plan out.

signals.py    INT, TERM and HUP: a gentle stop while jobs run, else an end at once
context.py    what a running stage sees: progress, checkpoints, the request to stop
board.py      where running jobs say how far they are and hear that they should stop
causes.py     why stages fail, by what is to be done about it
failed.py     what of a sweep failed, by cause, and which points to run again
stage.py      run_stage: the one path that every executor shares
importing.py  a file that ddray did not make -> the store, as the artifact of a finished stage
schedule.py   which jobs may run now, in which order
ledger.py     which GPUs and CPUs are free: what may be admitted
mps.py        the driver's service that lets processes use a card at the same time
calibrate.py  what stages take here, from a few steps of each shape; whether company pays
simulate.py   the same on a made-up clock: what a sweep would do on a machine, and which part of it a limit holds
limits.py     so long, until then, so many hours: what a person gives a run
nodes.py      what a node must share with the driver before it gets jobs
progress.py   what became of each job, and the time that is left
ladder.py     more of a card or of a machine for what ran out of memory
outcomes.py   what the outcome of a job means for the others
watch.py      what jobs wait for that no worker begins, and when nothing will come of it
local.py      one job at a time, in this process
cluster.py    the Ray that jobs run on, from its start to its end, and its nodes as they come and go
gauges.py     how things stand as numbers for Prometheus
tune.py       Ray Tune: a searcher that admits jobs, a trainable that runs them
display.py    the live table of progress
status.py     the same in a file, for `ddray status` elsewhere, and how the run ended
refresh.py    tables and report while a sweep runs
sweep.py      `ddray sweep`: data, plan, executor, tables, mirror, summary, exit code
"""
