"""Values of every measure on a CPU, as fast as its caches and vector units allow (paper, section 4).

blocks      blocks of queries, the arrays of a thread, the threads
runs        runs of equal Hamming distance, ranks drawn within them
values      ranks or runs of a block -> values of measures
real        real-valued features -> whole-number keys -> ranks
codes       binary codes -> packed bits -> runs
one_pass    all queries in one pass; what ties is left to the general path
"""
