"""Beyond the paper: coupled encoders for unsupervised domain adaptation.

digits  plain digits to digits blended with photos, by adversarial training
"""
