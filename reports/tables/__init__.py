"""Tables by subject, each with its formats.

latex       text and tables in LaTeX
table       the table itself, in each format
pairwise    sides compared pair by pair, with marks of significance
entries     measured values as entries
runs        where numbers come from, and which are missing
comparison  measured values beside each other and beside published ones
ablations   one change at a time
protocols   one ranking, every protocol
instances   retrieval of the very photo from which a sketch was drawn
ledger      the effect of each deviation of the released code
cross_dataset  drawings of another data set as queries
extension   domain adaptation on digits
claims      the paper's claims and the measurements of them
"""
