"""`python -m tcn extract`: the features of a split's pictures by a frozen ImageNet network, as the file that `evaluate` scores.

In: a split on disk and a backbone. Out: an .npz file. It is written in blocks:
an extraction that was stopped goes on where it was.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tcn.config import InputError, Modality
from tcn.data import declared, locate, specs, splits
from tcn.data.pixels import Pixels
from tcn.data.splits import Split
from tcn.data.store import pack
from tcn.files.atomic import writable_file, write_bytes, writing
from tcn.files.text import some
from tcn.model import backbones
from tcn.scoring.features import extract as extract_features

BLOCK = 2048
"""Pictures of a block: a multiple of the batch, so that an extraction in parts has the very features of one without a pause."""
LISTS = {"query": ("query", Modality.SKETCH), "gallery": ("gallery", Modality.PHOTO),
         "train-sketches": ("train_sketches", Modality.SKETCH), "train-photos": ("train_photos", Modality.PHOTO)}
"""Name of a part -> (list of the split, modality)."""
EXTRACT = """\
Takes the features of a split's unseen classes by a frozen ImageNet network (pooled, before the classifier), and writes them
as the file that `evaluate`, `tcn add` and `tcn compare` read: features, class names, names of the pictures. Nothing is trained.
"""
EXTRACT_EPILOG = """\
  The parts lie in FILE.parts until all are there; the same command goes on from them, and removes them at the end.

example
  python -m tcn extract --backbone resnet50 --dataset sketchy --split 1 --data-root /data --out resnet50.npz
  tcn add resnet50.npz --name imagenet-resnet50 --dataset sketchy --split 1 --output results/paper

exit status
  0 written; 1 it could not be written; 2 bad usage, or the data set is not there; 130 interrupted, and kept.
"""


class _Frozen(torch.nn.Module):
    """A backbone as `tcn.scoring.features.Encoding`: both modalities go through the same network."""

    def __init__(self, backbone: backbones.Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def encode_backbone(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        """Pooled features [B, d] of images [B, 3, H, W]."""
        features: torch.Tensor = self.backbone(images)
        return features

    def encode(self, images: torch.Tensor, modality: Modality, side: Modality | None = None) -> torch.Tensor:
        """The same: there is no embedding."""
        return self.encode_backbone(images, modality)


def add_extract(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand `extract` to argparse's subcommands."""
    p = commands.add_parser("extract", help="features of a split by a frozen ImageNet network", description=EXTRACT,
                            epilog=EXTRACT_EPILOG, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.set_defaults(run=extract)
    p.add_argument("--backbone", required=True, metavar="NAME",
                   help=f"one of {', '.join(backbones.SOURCES)}, or timm:NAME or torchvision:NAME (docs/encoders.md)")
    p.add_argument("--weights", type=Path, metavar="FILE", help="its weights (default: the published ImageNet weights)")
    p.add_argument("--dataset", required=True, metavar="NAME",
                   help=f"one of {', '.join(specs.SPECS)}, or a part such as sketchy-first25, or a YAML file of your own")
    p.add_argument("--split", metavar="NAME", help="its split (default: the first)")
    p.add_argument("--out", required=True, type=Path, metavar="FILE.npz", help="the file to write")
    p.add_argument("--train", action="store_true",
                   help="also the features of all training pictures of seen classes, on which codes are fitted "
                        "(`evaluate --itq`)")
    p.add_argument("--image-size", type=int, default=224, metavar="PIXELS", help="what the network sees (default: 224)")
    p.add_argument("--stored-size", type=int, metavar="PIXELS",
                   help="at which pictures are kept in the cache (default: 256, or the image size where that is larger)")
    p.add_argument("--data-root", type=Path, metavar="DIR",
                   help=f"folder that holds the data sets (default: ${locate.DATA_ROOT_VARIABLE})")
    p.add_argument("--cache", type=Path, metavar="DIR", help="decoded pictures (default: $TCN_CACHE, else .cache here)")
    p.add_argument("--lists", default="auto", metavar="DIR|none", help="list files, as for `data check`")
    p.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")


def extract(args: argparse.Namespace) -> int:
    """Extract what the options name, write the file, and return the exit status."""
    out: Path = args.out.expanduser()
    stored = args.stored_size or max(256, args.image_size)
    if args.image_size < 1 or stored < args.image_size:
        raise InputError(f"--image-size {args.image_size} and --stored-size {stored}: give sizes from 1, the stored "
                         "one no smaller")
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: give a name that ends in .npz")
    if out.exists():
        raise InputError(f"--out {out} is there already; remove it, or give another name")
    writable_file(out, "--out")
    try:
        device = torch.device(args.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {args.device} can't be used here: {str(error).splitlines()[0]}") from None
    backbones.check_size(args.backbone, args.image_size)
    weights = backbones.weights_setting(args.weights)
    model = _Frozen(backbones.encoder(args.backbone, weights, args.weights)).to(device)
    cache = (args.cache or Path(os.environ.get("TCN_CACHE") or ".cache")).expanduser()
    split = splits.load(declared.named(args.dataset), args.split, data_root=args.data_root, cache=cache,
                        progress=sys.stderr.isatty(), lists=args.lists)
    settings = {"backbone": args.backbone, "weights": weights, "dataset": split.dataset, "split": split.name,
                "data_digest": split.data_digest, "split_digest": split.split_digest, "image_size": args.image_size,
                "stored_size": stored}
    parts = out.with_name(out.name + ".parts")
    _begin(parts, settings)
    names = list(LISTS)[:4 if args.train else 2]
    for name in names:
        role, modality = LISTS[name]
        pixels = pack(getattr(split, role), stored, cache, split.data_digest, f"{split.dataset} {split.name} {role}",
                      sys.stderr.isatty(), images=split.images)
        _extract_list(parts, name, pixels, model, modality, args.image_size, device)
    _assemble(out, parts, names, split, settings)
    shutil.rmtree(parts)
    print(f"{out}: {len(split.query):,} sketches and {len(split.gallery):,} photos of {len(split.unseen)} unseen classes of "
          f"{split.dataset}/{split.name}, {args.backbone}")
    return 0


def _begin(parts: Path, settings: dict[str, Any]) -> None:
    """Make the folder of parts, or find the one of the same extraction. InputError where it is another's."""
    plan = parts / "settings.json"
    text = json.dumps(settings, indent=2) + "\n"
    if not plan.exists():
        if parts.exists() and any(not path.name.endswith(".partial") for path in parts.iterdir()):
            raise InputError(f"{parts} holds other files; remove it, or give another --out")
        write_bytes(plan, text.encode())
    elif (found := plan.read_text(encoding="utf-8", errors="replace")) != text:
        try:
            odd = [key for key, value in settings.items() if json.loads(found).get(key) != value]
        except (ValueError, AttributeError):
            odd = ["its settings.json is damaged"]
        raise InputError(f"{parts} holds parts of another extraction ({some(odd)}); remove it, or give another --out")


def _extract_list(parts: Path, name: str, pixels: Pixels, model: _Frozen, modality: Modality, size: int,
                  device: torch.device) -> None:
    """Write the blocks of one list that are not there yet."""
    for start in range(0, len(pixels), BLOCK):
        file, stop = parts / f"{name}-{start}.npy", min(start + BLOCK, len(pixels))
        if file.exists():
            continue
        features = extract_features(model, pixels.part(start, stop), modality, size, device, "backbone")
        with writing(file) as stream:
            np.save(stream, features)
        print(f"{name}: {stop:,} of {len(pixels):,}", file=sys.stderr, flush=True)


def _assemble(out: Path, parts: Path, names: list[str], split: Split, settings: dict[str, Any]) -> None:
    """All blocks, in order, as one file. InputError where a block is damaged; it is removed,
    so that the next call makes it anew."""
    found: dict[str, np.ndarray] = {}
    for name in names:
        blocks = []
        rows = len(getattr(split, LISTS[name][0]))
        for start in range(0, rows, BLOCK):
            file = parts / f"{name}-{start}.npy"
            try:
                block = np.load(file, allow_pickle=False)
                if block.ndim != 2 or len(block) != min(BLOCK, rows - start):
                    raise ValueError(f"shape {block.shape}")
            except (OSError, ValueError, EOFError) as error:
                file.unlink(missing_ok=True)
                raise InputError(f"{file} was damaged ({error}) and is removed; give the command again") from None
            blocks.append(block)
        found[name] = np.concatenate(blocks)
    classes = np.array(split.classes)
    arrays: dict[str, Any] = {"query": found["query"], "gallery": found["gallery"],
                              **_described(split, classes), "extraction": np.array(json.dumps(settings))}
    if len(names) > 2:
        arrays["train"] = np.concatenate([found[name] for name in names[2:]])
    with writing(out) as stream:
        np.savez(stream, **arrays)


def _described(split: Split, classes: np.ndarray) -> dict[str, np.ndarray]:
    """Class names, names of the pictures, and where the data set tells, which photo each was drawn from or is,
    and who drew it."""
    query, gallery = split.query, split.gallery
    arrays = {"query_labels": classes[query.labels], "gallery_labels": classes[gallery.labels],
              "query_paths": np.array(query.paths), "gallery_paths": np.array(gallery.paths)}
    if len(set(gallery.groups)) < len(gallery.groups):
        arrays["gallery_group"] = np.array(gallery.groups)
    if any(query.instances):
        arrays |= {"query_instance": np.array(query.instances), "gallery_instance": np.array(gallery.instances)}
    if any(query.sources):
        arrays["query_sources"] = np.array(query.sources)
    return arrays
