"""From measured values to statements about them.

nearest      photos nearest to each query
uncertainty  intervals and tests on arrays
pairwise     any number of sides, pair by pair
verdicts     sentences that follow from the numbers
judging      the paper's claims, compared and judged by one rule
evidence     findings and distances, put into sentences
"""
