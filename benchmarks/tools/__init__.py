"""Commands that a reader of the tables does not need.

make_words        a table of word vectors from a sentence model
make_emoji_split  the committed split of the laptop data set
search_settings   settings chosen on validation classes
structure         sizes, imports, complexity and repetition of the code
scoring_size      scoring at the paper's sizes
shared_hand       emoji of several publishers that are one drawing
safety_cost       what crash safety costs in time
torture           kills a grid at random moments and looks for losses
mutants_by_hand   the list of faults that were thought of
mutants           plants faults in the code, one at a time, and runs the tests
"""
