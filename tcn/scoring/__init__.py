"""From a network, or from features made elsewhere, to the numbers of every named protocol.

protocols   every rule of every protocol: AP and Prec, divisors, averages
moments     mean, scatter and singular values of more rows than memory holds as float64
features    network -> features; standardisation; singular values
codes       ITQ: features -> binary codes
rankings    distances -> ranks and runs of equal distance
measures    ranks -> AP and Prec by every rule, over tie orders
cpu         the same on a CPU, as fast as its caches allow
inputs      features and labels as given -> checked and comparable
retrieve    the nearest photos of each query; precision against recall
scores      one ranking -> every named protocol -> Scores
instances   the very photo that a sketch was drawn from: Acc@K
"""
