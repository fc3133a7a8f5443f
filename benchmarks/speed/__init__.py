"""Speed: each part of the suite beside a plain reference of the same computation, timed in one session.

reference_data      pairs from disk in the released style
reference_indexing  the lists of a split in the released style
reference_scoring   scoring in the released style
reference_training  a training step in the released style
conftest            the fixture `timed`
bench_data          pairs from disk to a ready batch
bench_indexing      the lists of a data set of Sketchy's size
bench_report        the whole report of 100 runs
bench_scoring       scoring at the size of real data sets
bench_sharing       the sharing loss of two ResNet-50
bench_training      the training step
run                 the command: all subjects, as a table
store_forms         the image store, decoded and compact: disk, reading, share of a step
gpu_scale           the sizes at which a GPU is measured
gpu_training        speed and memory of training on a GPU
gpu_processes       several processes on one GPU
gpu_parts           one part of the measurements on a GPU
gpu                 the command: everything that needs a GPU, part by part
"""
