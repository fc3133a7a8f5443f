"""The Transferable Coupled Network for zero-shot sketch-based image retrieval, and the protocol that scores it.

The files in the order in which data flows; each imports only files above it.

config      every scientific choice, its unit and source; run identity
text        text files as people save them: byte-order marks, line ends, encodings
files       whole or not there; locks that say who holds them
seeding     one random stream per role, epoch and step
word_files  word2vec and GloVe files, plain or zipped, read in a stream
words       class names -> word vectors
emoji       builds the laptop data set's folders from published emoji drawings
lists       list files in circulation: where they lie, what they name
datasets    layouts, classes, splits, counts, digests -> Split of Files
pixels      Files -> decoded once in a shared store -> Pixels
images      batched paired augmentation on the device
contents    bytes of picture files, and what readers treat differently
doctor      is on disk what was published? report and manifest
batches     photo-driven epochs -> PairBatch
batch_norms  batch statistics of channels-last images on the CPU, summed without loss
execution   precision, memory order and kernels: how a model is carried out
weight_files  files of weights, matched to an architecture by name
backbones   ImageNet networks and where their weights come from
coupling    which parts are hard-shared, softly tied, independent
embedding   projection, batch norm by modality, heads, SVD start
network     encoders + embedding -> CoupledOutput
losses      classification, distillation, soft sharing, semantic metric
codes       ITQ
rankings    distances -> ranks and runs of equal distance
measures    ranks -> AP and Prec by every rule, over tie orders
sweeps      the same on a CPU, as fast as its caches allow
metrics     one ranking -> every named protocol -> Scores
features    network -> features; standardisation; singular values
distances   how far the encoders move from their start and from each other
method      what training needs to know of a way to learn; TCN's own
checkpoints  a run's state at the end of an epoch: whole, checked, the last two kept
training    the loop: fit(method, model, ...) -> History
"""
from tcn.config import InputError, Modality

__all__ = ["InputError", "Modality"]
