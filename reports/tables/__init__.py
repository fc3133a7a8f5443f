"""Tables by subject, each with its formats.

latex       text and tables in LaTeX
comparison  the table itself, and measured values beside published ones
ablations   one change at a time
protocols   one ranking, every protocol
ledger      what each deviation of the released code moves
extension   domain adaptation on digits
claims      the paper's claims, judged
"""
