"""Files on disk, for the package, the harness and the report alike. Nothing here imports torch.

foreign     what a file of another format is, by how it begins
text        text files as people save them: byte-order marks, line ends, encodings
atomic      a file appears under its name only when it is complete and on the disk
checksums   SHA-256 of files, and the list of them beside the files
inside      whether a file lies where its path says
locks       one process at a time, and who it is
earlier     what earlier versions called things, in their result folders and on the command line
"""
