"""The deviation ledger: where the released code differs from the paper or from good practice, with both behaviours of each.

In: nothing. Out: `DEVIATIONS`. The command reads them for `--as-released`, the runner reads them to score the same features
once more under each released rule, and the report reads them from the result folders. Source: the behaviour of the released code.
"""
from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = ("training", "scoring", "pictures", "data", "fixed", "remaining")
SWITCHED = ("training", "scoring", "pictures")
"""Kinds of deviations that `--as-released` turns on, if they have a setting."""


@dataclass(frozen=True)
class Deviation:
    """One deviation of the released code. `kind` says how its effect is measured.

    `training`: by paired runs of two variants with the same seeds. `scoring`: by scoring the same trained network twice.
    `pictures`: it concerns how picture files are read, and is measured where such files occur. `data`: it lies in the files of a
    data set. `fixed`: corrected here, without a setting that turns it on. `remaining`: our behaviour stays different under
    `--as-released` too.
    """

    deviation: str
    title: str
    """What the released code does."""
    consequence: str
    kind: str
    setting: str = ""
    """Dotted key of the setting; empty where there is none."""
    released: Any = None
    corrected: Any = None
    arms: dict[str, str | None] = field(default_factory=lambda: {"corrected": None, "released": None})
    """For the kind `training` only: the two variants that are compared."""
    note: str = ""
    datasets: tuple[str, ...] = ()
    """Data sets on which the released code behaves like this; empty for all of them."""


def _paired(released: str, corrected: str = "tcn") -> dict[str, str | None]:
    return {"corrected": corrected, "released": released}


DEVIATIONS: tuple[Deviation, ...] = (
    Deviation("augmentation", "augmentation turns and scales about the top-left corner and fills with black",
         "objects are pushed out of view; black wedges tell an augmented sketch", "training",
         "data.augmentation", "released", "corrected", _paired("ledger-augmentation")),
    Deviation("loader", "data-loader workers are seeded without the epoch",
         "TU-Berlin replays every epoch's augmentations and sketch choices; on Sketchy the workers soon part", "training",
         "data.loader_streams", "replayed", "fresh", _paired("ledger-loader"),
         "A sketch is drawn by trying numbers until one is below its class's number of sketches. Where all classes have equally "
         "many (TU-Berlin, 70), each place takes as many tries in every epoch and everything is repeated. Sketchy's have 468 to "
         "696: the tries differ, and from then on a worker draws other numbers. Measured against the released code with 8 "
         "workers and the real lists, 4.0 per cent of the places repeat their geometry from epoch 1 to 2, 0.4 by a worker's 30th "
         "batch. So --as-released replays on TU-Berlin alone; no training lists of QuickDraw were released. Here one stream "
         "stands for all workers.", ("tuberlin",)),
    Deviation("resize", "the resize from 256 to 224 pixels rounds to 8 bits after each of its two passes, in training and at "
                        "test",
         "up to one grey level; of 3,125 real photos 8 per cent change their nearest neighbour (Lite0, 224 pixels)", "training",
         "data.resize", "rounded", "float", _paired("ledger-resize"),
         "Nothing is resized where pictures are stored at the network's own size, as on emoji at 64 pixels: there no pair is "
         "run."),
    Deviation("batch-norm-split", "data parallelism over two GPUs",
         "every batch norm sees half of the pairs, and one half never reaches the running statistics", "training",
         "network.batch_norm_split", 2, 1, _paired("ledger-batch-norm-split")),
    Deviation("words", "word vectors are raw for TU-Berlin (length 1.5 to 4.4), unit length for Sketchy",
         "the anchors weigh words differently per data set", "training",
         "data.unit_words", False, True, _paired("ledger-words"),
         "The committed vectors of the emoji classes have unit length (0.9999 to 1.0001) as they come, so on emoji this pair "
         "differs by rounding alone: its difference shows how far two runs part for no reason at all.", ("tuberlin",)),
    Deviation("semantic-off", "leaving out the semantic metric's flag runs batch-hard triplet plus regression",
         "\"without\" must be built, not switched", "training",
         "losses.semantic_off", "as-released", "zero", _paired("tcn-no-semantic-as-released", "tcn-no-semantic")),
    Deviation("missing-checkpoint", "a missing checkpoint prints a line, then the untrained model is scored",
         "silent nonsense", "training", "", "untrained model", "error", _paired("untrained-svd"),
         "Here a missing checkpoint is an error. The released arm is the untrained start, as the untrained baseline scores it."),
    Deviation("all", "all of them at once (--as-released)", "what the released code would report", "training",
         "", "--as-released", "default", _paired("tcn-as-released")),
    Deviation("photo-side", "photo features at test time are taken from the sketch output of the embedding",
         "where statistics are kept apart, the gallery is normalised with the sketches'", "scoring",
         "evaluation.photo_side", "sketch", "photo"),
    Deviation("itq-rule", "the ITQ rotation update takes NumPy's V^H for V",
         "orthogonal, but not the minimiser: the quantisation error hardly falls", "scoring",
         "evaluation.itq_rule", "released", "textbook"),
    Deviation("itq-fit", "ITQ is fitted on the test sketches; queries and gallery are each centred on their own mean",
         "transductive: test data shape the codes", "scoring", "evaluation.itq_fit", "as-released", "seen"),
    Deviation("itq-start", "ITQ starts from one matrix in every run (seed 50, U of an SVD), the eigenvectors' signs as they come",
         "one start of many: the start alone is worth a standard deviation of 0.004 to 0.006 in 64-bit mAP@all", "scoring",
         "evaluation.itq_start", "released", "drawn", note="That spread was measured on features of the released code. Any "
         "comparison of binary codes wants several starts."),
    Deviation("ties", "Hamming ties are broken by an unstable sort", "the number depends on the processor", "scoring",
         "evaluation.ties", "as-released", "expected",
         note="Each protocol as its own code has it: cvpr19 and sem-pcyc call scikit-learn, which gives all photos at one "
         "distance the precision at the last of them."),
    Deviation("missing-classes", "a class without gallery photos is skipped in mAP and counted as 0 in Prec",
         "one table, two query sets", "scoring", "evaluation.missing_classes", "as-released", "error"),
    Deviation("duplicates", "Sketchy's 12,500 original photos stand in the lists twice", "Prec@100 rises by about a point",
         "scoring", "", "as-published", "distinct", note="Both are always recorded; as-published heads the tables, since the "
         "published numbers follow it."),
    Deviation("one-matrix", "all distances are held as one float64 matrix", "40 GB of memory on QuickDraw, the same numbers",
         "scoring", "", "one matrix", "blocks"),
    Deviation("transparent", "transparent parts of a picture keep the colours beneath, most often black",
         "a drawing on a transparent ground is black on black", "pictures", "data.transparent", "as-stored", "white"),
    Deviation("exif", "a picture's EXIF orientation is applied", "as a viewer shows it; the stored pixels may lie on their side",
         "pictures", "data.exif", "applied", "ignored"),
    Deviation("photo-list", "split 2 and QuickDraw have class names only", "can't be run as released", "data",
         note="Lists are read where they exist; what they lack comes from the folders by a rule that is the same on every "
         "machine, and the run's notes say so. Later repositories publish lists: zermatt-luo/CMCA, and as CSV "
         "eunyi-lyou/MA-ZS-SBIR. TU-Berlin's training photos are in the released repository, "
         "dataset/TUBerlin/zeroshot/ImageResized_ready_filelist_train.txt."),
    Deviation("same-words", "turtle and sea_turtle have one word vector in Sketchy's table, crab and hermit_crab another",
         "the semantic metric can't tell the two classes of a pair apart", "data"),
    Deviation("imagenet-overlap", "split 1's unseen classes overlap ImageNet's 1,000",
         "\"unseen\" is relative; split 2 exists for this", "data", "data.split", "1", "2",
         note="`python -m tcn data check` lists the classes of each split that ImageNet knows."),
    Deviation("one-seed", "one seed (2020)", "several gaps of the ablation table are under half a point", "data",
         "seed", 2020, "several", note="Every table gives the spread over seeds and how many there are."),
    Deviation("flags", "a numeric margin neither parses nor runs; several flags do nothing; \"no pretraining\" is ignored",
         "flags can't be trusted", "fixed", note="Settings are typed: an unknown key, a wrong type or a value outside its "
         "choices is an error."),
    Deviation("last-batch", "a last batch of one to three pairs on two devices crashes", "a data set's size decides whether it "
                                                                                         "runs",
         "fixed", note="A pair alone at an epoch's end is left out, since batch norm needs two; two or three pairs are not "
         "split."),
    Deviation("no-best", "no best model is saved where the class accuracy is 0 in every epoch",
         "the test then finds no checkpoint, and scores an untrained model", "fixed", note="The first of equally good epochs is "
         "kept, at 0 too."),
    Deviation("picture-size", "a picture of another size than 256 x 256 is augmented at its own size and resized once",
         "22 grey levels on average for the same draw on one of 500 x 375", "remaining",
         note="Here every picture is brought to 256 x 256 when it is decoded, then augmented, then resized to the network's "
         "size. The figure was measured against the released code."),
    Deviation("truncation", "what the augmentation computes is truncated to 8 bits as it is", "ours, in float32, first adds "
         "2^-7 of a grey level: a value that close below a whole level becomes that level", "remaining",
         note="Without it, rounding in float32 would make pixels a level darker that came out whole; `augment_as_released`, in "
         "float64, adds 1e-6."),
)


def as_released(dataset: str) -> dict[str, Any]:
    """The settings (dotted keys) that turn on every deviation that has one, for one data set.

    >>> as_released("tuberlin")["data.unit_words"], "data.unit_words" in as_released("sketchy")
    (False, False)
    """
    return {deviation.setting: deviation.released for deviation in DEVIATIONS
            if deviation.setting and deviation.kind in SWITCHED and (not deviation.datasets or dataset in deviation.datasets)}


def entries() -> list[dict[str, Any]]:
    """The ledger as plain values, as result folders hold it; the report needs nothing else to describe a deviation."""
    rows = [asdict(deviation) for deviation in DEVIATIONS]
    return [{**row, "released": _text(row["released"]), "corrected": _text(row["corrected"])} for row in rows]


def _text(value: Any) -> str:
    return "" if value is None else str(value)
