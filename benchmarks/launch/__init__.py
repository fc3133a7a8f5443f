"""Where runs are computed, and what that will cost.

jobs         what is handed out: a run with all that a worker needs, how many at once, what came of it
processes    worker processes on this machine
cluster      Ray's workers, here or on other machines (the only import of ray)
slurm        SLURM's jobs (the only import of submitit)
chosen       the launcher that a command line asks for
board        how far all runs are
local        one run after the other in this process
driver       who gets which run; retries; what other calls work on
power        watts that a GPU draws
calibration  measures the seconds and bytes of a step on this machine
cost         prices a plan from these rates
"""
