"""From a network, or from features made elsewhere, to the numbers of every named protocol.

features    network -> features; standardisation; singular values
codes       ITQ: features -> binary codes
rankings    distances -> ranks and runs of equal distance
measures    ranks -> AP and Prec by every rule, over tie orders
cpu         the same on a CPU, as fast as its caches allow
metrics     one ranking -> every named protocol -> Scores
"""
