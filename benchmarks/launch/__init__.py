"""Where runs are computed, and what they will cost.

jobs         a job: a run with all that a worker needs; how many jobs at once; the outcome of a job
processes    worker processes on this machine
cluster      Ray's workers, here or on other machines (the only file that imports ray)
slurm        SLURM's jobs (the only file that imports submitit)
chosen       the launcher that a command line asks for
board        the progress of all runs, as text
local        one run after the other in this process
driver       several runs at once: the queue, retries, runs that other calls of the command work on
power        watts that a GPU draws
calibration  measures the seconds and bytes of a step on this machine
cost         prices a plan from these rates
"""
