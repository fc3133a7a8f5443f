"""`python -m tcn`: this package's rules for features made elsewhere, and its check of data sets.

feature_files     an .npz file -> checked arrays of features and labels
evaluate_options  the command line of `evaluate`, and its help
evaluate_table    scores -> the table on the screen, the CSV file
evaluate          features -> scores, by the options given
data_check        is what lies on disk what was published?
"""
