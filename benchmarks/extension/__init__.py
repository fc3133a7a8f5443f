"""Beyond the paper: coupled encoders for unsupervised domain adaptation, and queries drawn elsewhere.

digits_data    the two domains: plain digits, and digits blended with photos
digits         from one to the other by adversarial training: the runs and the command
cross_dataset  drawings of another data set as queries: the numbers and the command
"""
