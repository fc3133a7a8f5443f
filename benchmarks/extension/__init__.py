"""Beyond the paper: coupled encoders for unsupervised domain adaptation.

digits_data  the two domains: plain digits, and digits blended with photos
digits       from one to the other by adversarial training: the runs and the command
"""
