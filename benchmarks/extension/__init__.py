"""Experiments beyond the retrieval of the paper's tables: domain adaptation on digits, and queries from another data set.

digits_data    the two domains: plain digits, and digits blended with photos
digits         adaptation from one to the other by adversarial training: the runs and the command
cross_dataset  drawings of another data set as queries: the numbers and the command
"""
