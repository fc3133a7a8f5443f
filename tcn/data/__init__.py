"""From files on disk to a batch of paired, augmented pictures.

word_files  word2vec and GloVe files, plain or zipped, read in a stream
words       class names -> word vectors
emoji       builds the laptop data set's folders from published emoji drawings
lists       list files in circulation: where they lie, what they name
datasets    layouts, classes, splits, counts, digests -> Split of Files
pixels      Files -> decoded once in a shared store -> Pixels
contents    bytes of picture files, and what readers treat differently
doctor      is on disk what was published? report and manifest
augment     batched paired augmentation on the device
pairs       photo-driven epochs -> PairBatch
"""
