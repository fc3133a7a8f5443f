"""Where cells run, and what that will cost.

driver       hands cells to worker processes, starts lost workers again, shows one progress view
cluster      the same over Ray
calibration  measures the seconds and bytes of a step on this machine
cost         prices a plan from these rates
"""
