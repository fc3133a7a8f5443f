"""The grid: which runs a profile runs, with which settings, and which table or figure each feeds."""
from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import baselines
from baselines import ledger
from tcn.config import Config, InputError, change
from tcn.data.specs import DatasetSpec, sample_name


@dataclass(frozen=True)
class PlannedRun:
    """One run: a variant on a split of a data set with a seed, and its resolved settings."""

    dataset: str
    split: str
    variant: str
    config: Config
    smoke: bool = False
    """Planned by `--quick`, to try the chain: recorded with the run, whatever its settings; no part of its identity."""
    place: str = ""
    """Where other processes find the declaration of a variant of the user's own; empty for a built-in one.
    No part of its identity."""

    @property
    def definition(self) -> baselines.Variant:
        """The variant as it was declared. InputError where the file that declares it was not read."""
        return baselines.find(self.variant, self.config.method_source)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.seed

    @property
    def name(self) -> str:
        """Readable name, for progress bars, folders and MLflow."""
        return f"{self.dataset}-{self.split}__{self.variant}__seed{self.seed}"

    @property
    def task(self) -> str:
        """Data set and split, as the command line takes them: `sketchy/1`."""
        return f"{self.dataset}/{self.split}"

    @property
    def trained(self) -> bool:
        """False for untrained baselines."""
        return self.config.training.optimizer != "none"


@dataclass(frozen=True)
class Profile:
    """A base config per data set and split, and what runs when nothing is named."""

    name: str
    about: str
    base: dict[tuple[str, str], dict[str, Any]]
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    quick: dict[str, Any]
    """What `--quick` replaces, to run the whole chain fast; such results are marked as a smoke run."""
    sample: int | None = None
    """Files of each class taken where `--sample` does not say; None: all."""
    own: dict[str, Any] = field(default_factory=dict)
    """Base config of a data set of the user's own: the profile's of a data set whose settings others may share."""

    def with_own(self, own: Sequence[DatasetSpec]) -> Profile:
        """This profile with data sets that files of the user's own declare (`tcn.data.declared`)."""
        return replace(self, base=self.base | {(found.name, split): {
            "data.dataset": found.name, "data.declared": found.declared, "data.split": split, **self.own}
            for found in own for split in found.splits})


# Rates and sharing weight: docs/settings.md, chosen on validation classes by benchmarks/search_settings.py.
_LAPTOP = {
    "data.dataset": "emoji", "data.split": "fixed", "data.image_size": 64, "data.stored_size": 64,
    "data.photo_fill": 255,
    "network.backbone": "efficientnet_lite0", "network.embedding_norm": "per_modality",
    "losses.sharing": 1.0,
    "training.epochs": 14, "training.encoder_rate": 3e-3, "training.head_rate": 1e-2,
    "training.select_by": "validation_map",
}
# docs/sketchy-sample.md: chosen on seen classes carved out of split 1 (benchmarks/search_settings.py --profile sample).
_SAMPLE = {
    "data.image_size": 64, "data.stored_size": 64, "network.backbone": "efficientnet_lite0",
    "network.embedding_norm": "per_modality", "losses.sharing": 1.0,
    "training.epochs": 4, "training.encoder_rate": 3e-3, "training.head_rate": 1e-2,
}
_SKETCHY = {"data.dataset": "sketchy", "data.split": "1"}
_KEPT_APART = {"network.embedding_norm": "per_modality", "network.dropout": 0.5}
WIDE_DROPOUT = 0.7
"""Dropout of features longer than 64 where shorter ones have any (released)."""

PROFILES: dict[str, Profile] = {
    "laptop": Profile(
        "laptop", "emoji drawings, EfficientNet-Lite0 at 64 pixels; settings chosen on validation classes",
        {("emoji", "fixed"): _LAPTOP}, (*baselines.UNTRAINED_BASELINES, *baselines.MAIN), (0,),
        {"training.epochs": 1}, own=_SAMPLE),
    "paper": Profile(
        "paper", "Sketchy (both splits), TU-Berlin, QuickDraw; ResNet-50 at 224 pixels; the paper's settings",
        {("sketchy", "1"): _SKETCHY, ("sketchy", "2"): {**_SKETCHY, "data.split": "2"},
         ("tuberlin", "1"): {"data.dataset": "tuberlin", "data.split": "1", **_KEPT_APART},
         ("quickdraw", "1"): {"data.dataset": "quickdraw", "data.split": "1", **_KEPT_APART}},
        (*baselines.UNTRAINED_BASELINES, *baselines.MAIN), (2020,),
        {"training.epochs": 1}),
    "sample": Profile(
        "sample", "the first 25 sketches and photos of each class of Sketchy (both splits), TU-Berlin, QuickDraw; "
        "EfficientNet-Lite0 at 64 pixels; settings chosen on validation classes",
        {key: {"data.dataset": key[0], "data.split": key[1], **_SAMPLE}
         for key in (("sketchy", "1"), ("sketchy", "2"), ("tuberlin", "1"), ("quickdraw", "1"))},
        (*baselines.UNTRAINED_BASELINES, *baselines.MAIN), (0,),
        {"training.epochs": 1}, sample=25, own=_SAMPLE),
}

CLAIM_SEEDS = 6
"""Seeds of the rows that a claim compares: with fewer the report gives no verdict
(reports/stats/verdicts.py, SIGN_TEST_SEEDS)."""


@dataclass(frozen=True)
class Stage:
    """A part of the grid of `--everything`: rows that run on every split before the next stage begins."""

    variants: tuple[str, ...]
    """Variants or groups of them."""
    seeds: Literal["own", "further", "claim"]
    """`own`: the profile's seeds; `further`: those that CLAIM_SEEDS asks for besides; `claim`: both."""
    apart: bool = False
    """Whether each row is compared with rows of earlier stages alone, so that a budget may end after any of them. Else the rows
    of a split and seed are kept or cut together."""


EVERYTHING = (
    # One seed on every split shows where all of it goes; after that the seeds of one split after the other give verdicts.
    Stage(("untrained", "main"), "own"),
    Stage(("untrained", "main"), "further"),
    # What separates the claims: each claim's rows together.
    Stage(("hard-conv",), "claim"),
    Stage(("frozen-conv", "l2-sp"), "claim"),
    Stage(("tcn-weight-1000", "l2-sp-weight-1000"), "claim"),
    Stage(("hard-conv-slow",), "claim"),
    Stage(("squared",), "claim"),
    Stage(("hws-slow",), "claim"),
    *(Stage((group,), "own", apart=True)
      for group in ("controls", "ablation", "coupling", "weights", "dimensions", "methods", "ledger")),
    # The paper's claims on its ablation, whose first seed came above.
    *(Stage((name,), "further") for name in ("tcn-no-semantic", "tcn-bht", "tcn-bht-sr-0.1", "tcn-bht-sr-1", "tcn-bht-sr-10",
                                             "tcn-no-teacher", "tcn-shared-bn")),
)
"""The whole grid, in the order in which its report is worth reading;
the extension (benchmarks/extension/digits.py) follows it."""

FEEDS = {
    **dict.fromkeys(baselines.COUPLING, "coupling table and figure"),
    **dict.fromkeys(baselines.ABLATION, "ablation table"),
    **dict.fromkeys(baselines.GROUPS["dimensions"], "dimension table and figure"),
    **dict.fromkeys(baselines.METHODS, "table of other methods"),
    **dict.fromkeys(baselines.CONTROLS, "table of controls, layer distances"),
    **dict.fromkeys(baselines.MAIN, "comparison table, ablation table, motivation curves, singular values, t-SNE, "
                                    "retrieval examples"),
    "hws-separate": "ablation table, singular values",
    **dict.fromkeys(baselines.UNTRAINED_BASELINES, "comparison table (untrained baseline)"),
    **dict.fromkeys(baselines.LEAVE_ONE_OUT, "ablation table"),
    **{name: "ledger table" for name in baselines.LEDGER if name not in (*baselines.MAIN, *baselines.UNTRAINED_BASELINES,
                                                                         *baselines.LEAVE_ONE_OUT)},
    **dict.fromkeys(baselines.FOUNDATION, "table of further variants"),
    **dict.fromkeys(baselines.WEIGHTS, "sharing-weight table and curve, singular values"),
}


def expand_variants(names: Sequence[str]) -> list[baselines.Variant]:
    """What names stand for (variants, groups such as `main`, files and packages that declare some), in order, each once.
    InputError for an unknown one, or where two files declare variants of one name."""
    found: dict[str, baselines.Variant] = {}
    for variant in (variant for name in names for variant in baselines.named(name)):
        if found.setdefault(variant.name, variant).source != variant.source:
            raise InputError(f"{found[variant.name].place} and {variant.place} both declare '{variant.name}'; a table "
                             "has one row of that name: rename one of them")
    return list(found.values())


def _names(dataset: str, split: str, parts: Mapping[str, str]) -> tuple[str, ...]:
    """What a split of a data set may be called on the command line."""
    return tuple(name for its in dict.fromkeys((dataset, parts.get(dataset, dataset))) for name in (its, f"{its}/{split}"))


def part_names(profile: Profile, sample: int | None) -> dict[str, str]:
    """Data set of a profile -> the name of its sample of `sample` files of each class, by default the profile's; empty where all
    files are taken. InputError where the profile's data sets have no samples."""
    number = sample or profile.sample
    return {dataset: sample_name(dataset, number) for dataset, _ in profile.base} if number else {}


def plan(profile: Profile, datasets: Sequence[str] | None, variants: Sequence[str] | None,
         seeds: Sequence[int] | None, overrides: dict[str, Any], quick: bool, as_released: bool = False,
         parts: Mapping[str, str] = MappingProxyType({})) -> list[PlannedRun]:
    """The runs asked for: data set by data set, seed by seed, untrained baselines first. InputError for an unknown name. A data
    set's name alone means all of its splits, `sketchy/1` one of them. `parts`: data set -> the part of it that is used in its
    place; either name may be asked for.

    Settings come in this order, later ones over earlier: defaults, the profile's, deviations (`as_released`: in every run),
    `quick`'s, `overrides`, the variant's own delta, and what follows from other settings (`_derived`). A point of a
    grid whose settings are those of a run planned already (the weight that is TCN's own) is left out. InputError too
    where an override changes no run, since each one's variant has its own value (`held_by_variants`).
    """
    blocks = _blocks(profile, datasets, [(expand_variants(variants or profile.variants), seeds or profile.seeds, False)],
                     overrides, quick, as_released, parts)
    return [run for block in blocks for run in block]


def plan_everything(profile: Profile, datasets: Sequence[str] | None, overrides: dict[str, Any], quick: bool,
                    as_released: bool = False, parts: Mapping[str, str] = MappingProxyType({})) -> list[list[PlannedRun]]:
    """The runs of EVERYTHING in its order, each once, in blocks that a budget keeps or cuts whole. `quick`: each row with the
    profile's own seeds alone. Otherwise as `plan`."""
    own = tuple(profile.seeds)
    further = () if quick else tuple(range(max(own) + 1, max(own) + 1 + max(0, CLAIM_SEEDS - len(own))))
    seeds = {"own": own, "further": further, "claim": own + further}
    stages = [(expand_variants(stage.variants), seeds[stage.seeds], stage.apart) for stage in EVERYTHING]
    return _blocks(profile, datasets, stages, overrides, quick, as_released, parts)


def _blocks(profile: Profile, datasets: Sequence[str] | None,
            stages: Sequence[tuple[Sequence[baselines.Variant], Sequence[int], bool]],
            overrides: dict[str, Any], quick: bool, as_released: bool, parts: Mapping[str, str]) -> list[list[PlannedRun]]:
    """For each stage (variants, seeds, whether each run is a block of its own) the runs of each split and seed."""
    known = {name: None for key in profile.base for name in _names(*key, parts)}
    for name in datasets or ():
        if name not in known:
            elsewhere = [p.name for p in PROFILES.values() if any(name in _names(*key, {}) for key in p.base)]
            raise InputError(f"unknown data set '{name}' in profile '{profile.name}'; choose among {', '.join(known)}"
                             + (f", or --profile {elsewhere[0]}" if elsewhere else ""))
    blocks: list[list[PlannedRun]] = []
    told: set[Config] = set()
    planned: set[str] = set()
    for variants, seeds, apart in stages:
        for (dataset, split), delta in profile.base.items():
            if datasets and not set(datasets).intersection(_names(dataset, split, parts)):
                continue
            used = parts.get(dataset, dataset)
            for seed in seeds:
                block = []
                for variant in variants:
                    config = settings_of(variant, {**delta, "data.dataset": used}, seed, dataset, overrides,
                                         profile.quick if quick else {}, as_released)
                    run = PlannedRun(used, split, variant.name, config, quick, variant.place)
                    if run.name in planned or variant.grid_point and _telling(config) in told:
                        continue
                    planned.add(run.name)
                    told.add(_telling(config))
                    block.append(run)
                blocks += [[run] for run in block] if apart else [block] if block else []
    runs = [run for block in blocks for run in block]
    for key, names in held_by_variants(runs, overrides).items():
        if len(names) == len({run.variant for run in runs}):
            raise InputError(f"{key}={overrides[key]} changes nothing: {', '.join(names)} {'has' if len(names) == 1 else 'have'} "
                             f"a value of {'its' if len(names) == 1 else 'their'} own; name other variants, or leave it out")
    return blocks


def settings_of(variant: baselines.Variant, base: Mapping[str, Any], seed: int, dataset: str, overrides: Mapping[str, Any],
                quick: Mapping[str, Any], as_released: bool) -> Config:
    """One run's settings, in the order that `plan` states. `dataset`: the data set's own name, not that of its part.
    InputError where they are none."""
    deviations = ledger.as_released(dataset) if as_released or variant.as_released else {}
    asked = {**overrides, **variant.delta}
    try:
        config = change(change(Config(), {**base, **deviations, **quick}),
                        {**asked, "method": variant.method.name, "method_source": variant.source, "seed": seed})
        return change(config, _derived(variant, config, asked))
    except InputError as error:
        raise InputError(f"{variant.place}: '{variant.name}': {error}" if variant.place else str(error)) from error


def _telling(config: Config) -> Config:
    """The same settings but for what changes nothing beside the others: how pictures are resized that are not."""
    return config if config.data.image_size != config.data.stored_size else change(config, {"data.resize": "float"})


def _derived(variant: baselines.Variant, config: Config, asked: Collection[str]) -> dict[str, Any]:
    """Settings that follow from others, however those came about (profile, variant, override). The only place where they do:

    - rates that a variant multiplies;
    - no epochs where nothing is trained;
    - the dropout of features longer than 64, unless a dropout was `asked` for;
    - pictures stored no smaller than the encoders see them, unless a stored size was `asked` for.
    """
    settings = {key: operator.attrgetter(key)(config) * factor for key, factor in variant.factors.items()}
    if config.training.optimizer == "none":
        settings["training.epochs"] = 0
    if config.network.dropout and config.network.dim > 64 and "network.dropout" not in asked:
        settings["network.dropout"] = WIDE_DROPOUT
    if "data.stored_size" not in asked:
        settings["data.stored_size"] = max(config.data.stored_size, config.data.image_size)
    return settings


def held_by_variants(runs: Sequence[PlannedRun], overrides: dict[str, Any]) -> dict[str, list[str]]:
    """Override -> variants that it leaves as they are, since the setting is what makes them (`nws` has no sharing loss)."""
    found: dict[str, list[str]] = {}
    for key, value in overrides.items():
        names = [run.variant for run in runs if run.definition.delta.get(key, value) != value
                 or key == "training.epochs" and not run.trained and value]
        if names:
            found[key] = list(dict.fromkeys(names))
    return found
