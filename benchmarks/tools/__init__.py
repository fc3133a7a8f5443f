"""Commands that a reader of the tables does not need.

make_words        a table of word vectors from a sentence model
make_emoji_split  the committed split of the laptop data set
search_settings   settings chosen on validation classes
structure         sizes, imports, complexity and repetition of the code
scoring_size      scoring at the paper's sizes
shared_hand       emoji of several publishers that are one drawing
safety_cost       what crash safety costs in time
torture_child     starts the command of the kill test, counts its writes, kills it
torture_checks    what must hold after a kill
torture           kills a grid at random moments and looks for losses
mutants_of_runs   faults written by hand, on the way from a run's settings to its numbers
mutants_by_hand   all faults written by hand, and mutants known to change nothing
mutant_operators  faults generated from the syntax tree
mutant_plan       the files to mutate, and the mutants of each
mutant_runs       the tests against each mutant, in forked processes
mutants           plants faults in the code, one at a time: the command and its page
"""
