"""The Transferable Coupled Network for zero-shot sketch-based image retrieval, and the protocol that scores it.

The rooms in the order in which data flows. Each imports only rooms listed above it, and inside a room each file imports only
files listed above it in the room's own list.

config      every scientific choice, its unit and source; run identity
seeding     one random stream per role, epoch and step
files       files on disk: text, atomic writes, locks
data        files -> paired, augmented batches
model       ImageNet networks -> coupled encoders and embedding
scoring     features -> the numbers of every protocol
train       model and batches -> trained model
cli         `python -m tcn`

The public names of the first release (`tcn.metrics`, `tcn.losses`, `tcn.embedding`, `tcn.images`, `tcn.training`, `tcn.codes`)
are still importable under those names.
"""
from tcn.config import InputError, Modality

__all__ = ["InputError", "Modality"]
