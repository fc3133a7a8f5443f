"""From a network, or from features made elsewhere, to the numbers of every named protocol.

protocols   every rule of every protocol: AP and Prec, divisors, averages
moments     mean, scatter and singular values of rows that do not fit the memory as float64
features    network -> features; standardisation; singular values
codes       ITQ: features -> binary codes
rankings    distances -> ranks and runs of equal distance
measures    ranks -> AP and Prec by every rule, over tie orders
cpu         rankings and measures on a CPU, as fast as its caches allow
inputs      features and labels as given -> checked and comparable
retrieve    the nearest photos of each query; precision against recall
scores      one ranking -> every named protocol -> Scores
instances   retrieval of the very photo from which a sketch was drawn: Acc@K
"""
