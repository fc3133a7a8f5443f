"""From measured values to statements about them.

uncertainty  intervals and tests on arrays
verdicts     sentences that follow from the numbers
"""
