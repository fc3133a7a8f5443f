"""From files on disk to a batch of paired, augmented pictures.

word_files  word2vec and GloVe files, plain or zipped, read in a stream
pickled     pickled dictionaries of arrays, read without running code
words       class names -> word vectors
emoji_packages  npm packages of drawings -> concepts and their SVG
emoji       builds the laptop data set's folders from published emoji drawings
lists       published list files: where they lie, what they name
specs       what each data set is: layout, classes, counts, and all that is special to it
strokes     drawings kept as strokes -> class folders of pictures
locate      the folders of a data set, and its list directories
scan        folders of class folders -> classes, image files, problems
declared    a YAML file of the user's own -> the spec of a data set
known_splits  which split a set of classes and counts is of
matching    lines of lists -> files on disk
splits      folders and lists -> Split of Files, with digests
decode      one image file -> pixels
prefetch    work done in threads ahead of its use; batches to the device
pixels      the images of one list: a view of the store
packing     the two forms in which a store keeps images: decoded, or compact
store       Files -> decoded once in a shared store -> Pixels
contents    bytes of picture files, and what readers treat differently
report      what a check found, as text and JSON
doctor      is on disk what was published? counts, damage, leaks, manifest
augment     batched paired augmentation on the device
pairs       photo-driven epochs -> PairBatch
"""
