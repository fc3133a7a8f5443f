"""`python -m tcn`: this package's rules for features made elsewhere, its check of data sets, and its pictures of drawings.

ending            what a command says and returns for bad input, and when it is interrupted
feature_files     an .npz file -> checked arrays of features and labels
evaluate_options  the command line of `evaluate`, and its help
evaluate_table    scores -> the table on the screen, the CSV file
evaluate          features -> scores, by the options given
data_check        is what lies on disk what was published?
extract           a split's pictures -> their features by a frozen network
quickdraw         strokes of QuickDraw -> class folders of pictures
"""
