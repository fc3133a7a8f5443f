"""What the report tells and in which order: sections of sentences, verdicts, tables and figures, from the question to the runs.

In: a checked suite. Out: sections that `page` sets in HTML and `documents` in Markdown and LaTeX; nothing is formatted here.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from reports import naming, paper
from reports.figure_kinds import FigureData
from reports.lint import BrokenRule
from reports.read.means import Recomputed
from reports.read.measured import NOT_MEASURED
from reports.read.runs import setting
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.render import provenance
from reports.stats import evidence, verdicts
from reports.stats.verdicts import Verdict
from reports.tables import ablations, claims, comparison, cross_dataset, extension, instances, ledger, protocols, runs
from reports.tables.entries import duration
from reports.tables.table import Table

TITLE = "Does the published number hold?"
PROFILES = {"laptop": "the laptop profile", "paper": "the paper's data sets", "sample": "samples of the paper's data sets",
            "bundles": "runs that others sent"}
CHAIN = ("Every measured number links to the runs it was measured in, s0, s1, ... to single seeds. A run's entry holds its "
         "folder, all settings, code, data and environment, the values per query that its means are made of, and the command "
         "that runs it again and compares every number. The tables' .runs.csv files hold the same links as text.")
RULES = ("Two rules stand beside each other, computed from one ranking. released: what the paper's code computes "
         "(interpolated precision, mean over classes). standard: plain average precision, mean over queries.")


@dataclass(frozen=True)
class Text:
    """A paragraph that stands out: `lead`, `soft`, `smoke` (a warning) or `command`."""

    text: str
    style: Literal["", "lead", "soft", "smoke", "command"] = ""


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    items: tuple[str, ...]


Block = str | Text | Points | Verdict | Table | FigureData


@dataclass(frozen=True)
class Section:
    """A section of the report: heading, anchor, its blocks, and its parts below it."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]
    parts: tuple[Section, ...] = ()
    short: str = ""
    """Its name in the bar of contents, from which it is left out where this is empty."""

    def every(self) -> list[Block]:
        """Its blocks and those of its parts, in order."""
        return [*self.blocks, *(block for part in self.parts for block in part.every())]


def sections(suite: Suite, pictures: Mapping[Task, Sequence[FigureData]], checked: dict[str, Recomputed],
             findings: Sequence[BrokenRule], beyond: FigureData | None = None, explored: Sequence[str] = ()) -> list[Section]:
    """The whole report, top to bottom. `pictures`: task -> its figures; `checked`: run -> its means worked out again;
    `beyond`: the extension's figure; `explored`: what the page's explorer says of itself."""
    tasks = [_task(suite, task, pictures[task]) for task in suite.tasks()]
    published = [table for table in (comparison.paper_comparison(suite),) if table is not None]
    found = [Section("found", "What each variant finds", tuple(_found(suite, pictures)), short="What is found"),
             Section("answers", "The question, and the answers", tuple(_answers(suite)), short="Answers"),
             Section("claims", "The paper's claims, one by one", tuple(_some(
                 "Each claim of the paper beside what was measured. A verdict on the paper comes only from its own data sets; "
                 "what a laptop or a sample says stands in a column of its own, which names its optimiser steps.",
                 claims.table(suite))), short="Claims")]
    if published:
        found.append(Section("published", "Beside the published numbers", (*published, comparison.contradictions()),
                             short="Published numbers"))
    if explored:
        found.append(Section("queries", "Every query, looked at", (Points(tuple(explored)),), short="Every query"))
    found += tasks
    if further := _some(extension.table(suite.holding(extension.FOLDER)), beyond):
        found.append(Section("extension", "Beyond retrieval: the coupled idea in domain adaptation", tuple(further),
                             short="Extension"))
    time = ablations.time_taken(suite)
    if time is not None:
        found.append(Section("time", "The time it took", (ablations.time_sentence(suite), time), short="Time"))
    beside = (*extension.read(suite.holding(extension.FOLDER)).left_out, *cross_dataset.read(suite)[1])
    suite.left_out += [note for note in beside if note not in suite.left_out]
    if gaps := _some(runs.cut(suite), runs.unfinished(suite), runs.left_out(suite)):
        found.append(Section("missing", "What is missing", tuple(gaps), short="Missing"))
    proofs = sum(f.kind == "proof" for f in findings)
    where = "in the table of contradictions." if published else "`python reports/lint.py` prints them."
    blocks = _some(CHAIN, provenance.summary(checked) if suite.runs else None, ledger.reproductions(suite),
                   runs.provenance(suite, compact=True),
                   Text(f"The list of published numbers was checked too: {proofs} contradictions by proof, "
                        f"{len(findings) - proofs} hints; {where}", "soft"))
    found.append(Section("runs", "Where every number comes from", tuple(blocks), short="Provenance"))
    return [_versioned(section) for section in found]


def _versioned(section: Section) -> Section:
    """The same, every table with its protocol version."""
    return replace(section, blocks=tuple(block.versioned() if isinstance(block, Table) else block for block in section.blocks),
                   parts=tuple(map(_versioned, section.parts)))


def opening(suite: Suite) -> list[Block]:
    """What stands below the title: warnings, the question, what was run."""
    blocks: list[Block] = []
    if suite.smoke or any(run.smoke for run in suite.runs):
        blocks.append(Text("Smoke run: trained for an epoch or so, to check that the chain works. These numbers say nothing "
                           "about the method.", "smoke"))
    active = _released_behaviour(suite)
    if active:
        blocks += [Text("Behaviour of the released code is turned on in runs outside the ledger, so their numbers are not the "
                        "corrected ones:", "smoke"),
                   Points(tuple(f"{title} ({runs} of {len(suite.runs)} runs)" for title, runs in active.items()))]
    blocks.append(Text("The Transferable Coupled Network (TCN) finds photos of classes it never saw, given a sketch. Its two "
                       "encoders, one for sketches and one for photos, have softly tied convolutions and batch norms of their "
                       "own. "
                       "The paper says that this soft sharing beats one encoder for both (HWS), which beats two untied ones "
                       "(NWS). "
                       "This page shows what was measured here, how sure it is, and where each number comes from.", "lead"))
    counts = [f"{len(suite.unfinished)} without numbers"] if suite.unfinished else []
    if left := sum(map(len, suite.cut_rows.values())):
        counts.append(f"{left} left out by the budget of {suite.cut.budget}")
    counts += [f"{len(suite.left_out)} found and not used"] if suite.left_out else []
    started = f", started {str(suite.created)[:16].replace('T', ' ')}" if suite.created else ""
    others = f"Of other runs, {', '.join(counts)}. " if counts else ""
    time = ablations.time_sentence(suite) or "No finished run."
    blocks.append(Text(f"{time} {others}Profile {suite.profile}{started}.", "soft"))
    blocks += [Text(line, "command") for line in suite.command.splitlines()]
    if suite.missing_datasets:
        blocks += ["Data sets that were asked for and not there:",
                   Points(tuple(f"{name}: {reason}" for name, reason in suite.missing_datasets.items()))]
    if not any(paper.is_paper(task) for task in suite.tasks()):
        blocks.append(Text("The paper's own data sets (Sketchy, TU-Berlin, QuickDraw) were not measured in these results, so no "
                           "measured number stands beside a published one here.", "soft"))
    return blocks


def _found(suite: Suite, pictures: Mapping[Task, Sequence[FigureData]]) -> list[Block]:
    """The retrieved photos and the main table of each task."""
    blocks: list[Block | None] = []
    for task in suite.tasks():
        heading = f"{naming.task_title(task)}:" if len(suite.tasks()) > 1 else None
        retrieved = [figure for figure in pictures[task] if figure.kind == "retrieval"]
        blocks += [heading, *retrieved, RULES, comparison.comparison(suite, task)]
    return _some(*blocks)


def _answers(suite: Suite) -> list[Block]:
    blocks: list[Block] = []
    for task in suite.tasks():
        if len(suite.tasks()) > 1:
            blocks.append(f"{naming.task_title(task)}:")
        blocks += [Verdict(v.question, v.state, v.answer) for v in _verdicts(suite, task)]
    return blocks


def _task(suite: Suite, task: Task, pictures: Sequence[FigureData]) -> Section:
    """What is shown of a task beside what `_found` shows; a part without anything to show is left out."""
    left = {figure.kind: [f for f in pictures if f.kind == figure.kind] for figure in pictures if figure.kind != "retrieval"}

    def drawn(*kinds: str) -> list[FigureData]:
        return [figure for kind in kinds for figure in left.pop(kind, [])]

    validation = any(score.classes == "validation" for score in suite.scores(task))
    overview = drawn("overview")
    parts: list[tuple[str, str, str, Sequence[Block | None]]] = [
        ("comparison", "The comparison: who finds the right photos", "Comparison",
         [*overview, protocols.duplicates(suite, task), *_verdicts(suite, task),
          *drawn("precision_recall")]),
        ("parts", "What each part of the method is worth", "Ablation",
         [ablations.ablation(suite, task), ablations.further(suite, task)]),
        ("criterion", "What is coupled: from nothing to everything", "Coupling",
         [ablations.coupling(suite, task), *drawn("coupling")]),
        ("weights", "How hard the tie pulls", "Sharing weight",
         [ablations.sharing_weights(suite, task), *drawn("sharing_weight")]),
        ("lengths", "How many dimensions it takes", "Dimensions", [ablations.dimensions(suite, task), *drawn("dimensions")]),
        ("others", "Other methods under the same harness", "Other methods", [ablations.methods(suite, task)]),
        ("why", "Why it works: controls the paper lacks", "Why it works",
         _under("A tie can do other things than couple: hold both encoders at their ImageNet start, or leave all the learning to "
                "the batch norms. These runs and distances tell such readings apart.",
                [claims.controls(suite, task), *drawn("layer_distances", "motivation")])),
        ("look", "A look at the features", "Features", drawn("tsne", "singular_values")),
        ("sure", "How sure it is", "How sure",
         _under("Queries of one class are not independent, so intervals resample classes and seeds; comparisons pair the same "
                "seeds and classes.", [*drawn("intervals"), _measured_rows(claims.comparisons(suite, task)),
                                 _points(evidence.paper_gaps(suite, task)), *drawn("class_precision")])),
        ("ledger", "Where paper, released code and good practice part", "Ledger",
         _under("The paper's code departs in places from what the paper says or from good practice. Each such deviation "
                "is a setting here, and this is what it is worth.",
                [ledger.table(suite, task), *drawn("ledger_bars"), ledger.ties(suite, task)])),
        ("rules", "One ranking, six numbers", "Six rules",
         _under("Papers on this task print mAP and precision by at least six rules under the same names. Here all of them count "
                "the same rankings.", [protocols.table(suite, task)])),
        ("instances", "The very photo that was drawn", "The very photo",
         _under("Each of these sketches was drawn from one photo. Retrieval by class asks for any photo of the class; here only "
                "that very one counts, as in fine-grained retrieval.", [instances.table(suite, task)])),
        ("drawn-elsewhere", "Queries drawn elsewhere", "Drawn elsewhere",
         _under("How much of what was learned is bound to one collection of drawings? The same networks and photos, "
                "with queries of another data set.", cross_dataset.tables(suite, task))),
        ("views", "Other classes, sources and cut-offs", "Other views",
         [comparison.comparison(suite, task, "validation") if validation else None, comparison.per_publisher(suite, task),
          *drawn("publishers"), comparison.cutoffs(suite, task)]),
    ]
    parts += [("more", "Further figures", "", [figure for figures in left.values() for figure in figures])]
    parts += [("missing", "What was not measured here", "Not measured", [ablations.not_measured(suite, task)])]
    sections_of_task = [Section(f"{task.slug}-{name}", title, tuple(_some(*blocks)), short=short)
                        for name, title, short, blocks in parts if _some(*blocks)]
    caveats = _caveats(suite, task)
    if caveats:
        sections_of_task.append(Section(f"{task.slug}-caveats", "To keep in mind", (Points(tuple(caveats)),)))
    return Section(task.slug, naming.task_title(task), tuple(_setting(suite, task)), tuple(sections_of_task),
                   naming.task_title(task).replace(" Extended", ""))


def _some(*blocks: Block | None) -> list[Block]:
    return [block for block in blocks if block is not None and block != ""]


def _under(lead: str, blocks: Iterable[Block | None]) -> list[Block | None]:
    """The blocks below a sentence of introduction; nothing where there are none."""
    found = _some(*blocks)
    return [lead, *found] if found else []


def _measured_rows(table: Table | None) -> Table | None:
    """The table with its rows that were not measured named in one note, so that they don't bury the others."""
    if table is None:
        return None
    missing = [row for row in table.rows if row.kind == "data" and any(e.text == NOT_MEASURED for e in row.entries)]
    kept = [row for row in table.rows if row not in missing]
    kept = [row for i, row in enumerate(kept) if row.kind != "section" or i + 1 < len(kept) and kept[i + 1].kind != "section"]
    names = "; ".join(dict.fromkeys(row.entries[0].text for row in missing))
    note = (f"Not measured: {names}.",) if missing else ()
    return replace(table, rows=tuple(kept), notes=(*table.notes, *note))


def _points(sentences: Sequence[str]) -> Points | None:
    return Points(tuple(sentences)) if sentences else None


def _released_behaviour(suite: Suite) -> dict[str, int]:
    """Deviation -> in how many runs it is turned on, leaving aside the ledger's own variants, which are there to show it."""
    found: dict[str, int] = {}
    for deviation in suite.deviations:
        if deviation.setting and deviation.kind in ("training", "scoring"):
            runs = sum(not paper.is_ledger(suite, run.variant)
                       and deviation.released == str(setting(run.config, deviation.setting)) for run in suite.runs)
            if runs:
                found[deviation.title] = runs
    return found


def _verdicts(suite: Suite, task: Task) -> list[Verdict]:
    if suite.smoke:
        return [Verdict("What do these numbers say?", "open", "Nothing: this is a smoke run.")]
    found = verdicts.beats_untrained(suite, task), verdicts.sharing_order(suite, task), evidence.why(suite, task)
    return [verdict for verdict in found if verdict is not None]


def _setting(suite: Suite, task: Task) -> list[Block]:
    """One paragraph: how the main trained rows were trained; what is not the same for all follows as a list."""
    trained = [c for v in paper.TRAINED for c in suite.runs_of(task, v) if c.trained]
    blocks: list[Block] = []
    if trained:
        def of(key: str) -> str:
            return " or ".join(sorted({str(setting(c.config, key, "?")) for c in trained}))
        chosen = " or ".join(sorted({c.provenance.selected_by or "?" for c in trained}))
        steps = verdicts.optimiser_steps(suite, task)
        seconds = [taken for c in trained if (taken := c.provenance.train_seconds)]
        time = f", {duration(sum(seconds) / len(seconds))} a run on average" if seconds else ""
        backbone = " or ".join(naming.BACKBONES.get(name, name) for name in of("network.backbone").split(" or "))
        blocks.append(f'{backbone} at {of("data.image_size")} pixels, {of("network.dim")} dimensions, batches of '
                      f'{of("data.batch_pairs")} pairs, {of("training.epochs")} epochs ({steps or "an unknown number of"} '
                      f"optimiser steps{time}). The epoch that is scored was chosen by {chosen}.")
    if sentences := verdicts.unequal_training(suite, task):
        blocks.append(Points(tuple(sentences)))
    return blocks


def _caveats(suite: Suite, task: Task) -> list[str]:
    if paper.is_paper(task):
        return [("Gallery photos may be among those the ImageNet weights were trained on; of Sketchy's two splits only the "
                "second keeps clear of ImageNet's 1,000 classes.")]
    steps = verdicts.optimiser_steps(suite, task)
    part = naming.part_of(task.dataset)[1]
    what = naming.numbers_of(task)
    other = "a smaller gallery" if part else "another gallery" if task.dataset.endswith(naming.GENERALISED) else "other data"
    networks = {setting(run.config, "network.backbone") for variant in suite.variants(task)
                for run in suite.runs_of(task, variant)}
    caveats = [f"{what} are not comparable to published ones: {other}" + (", another network" if networks != {"resnet50"} else "")
               + (f", {steps} optimiser steps against the paper's {paper.PAPER_STEPS:,}" if steps else "")
               + ". They never share a table with published numbers."]
    if naming.sample_size(task.dataset):
        caveats.append("Files of a sample are the first of each class by name, so that whoever has the archive can cut "
                       "the same one. A class has few photos: chance and the ceiling of a perfect ranking stand beside "
                       "every number.")
    if task.dataset.endswith(naming.GENERALISED):
        caveats.append("Generalised: the gallery holds photos of seen classes too, so that no number here is comparable "
                       "with one of the gallery of unseen classes alone. Each run's notes say whether training used "
                       "those photos.")
    if task.dataset == "emoji":
        caveats += [
            "Two of the three drawing sets are filled pictograms, not line drawings; see the numbers by publisher.",
            ("EmojiOne's monotone drawings visibly repeat its v1 pictures for some concepts, so EmojiOne queries are also "
            "scored with the v1 pictures left out."),
            "A class has 4 or 5 photos, so Prec@100 can't exceed 0.05; mAP@all and Prec@R head the tables.",
        ]
    return caveats


def profile_name(suite: Suite) -> str:
    """What was run, for people: the data of the profile, and data sets of the user's own by name."""
    wholes = {naming.part_of(task.dataset)[0] for task in suite.tasks()}
    own = sorted(wholes - naming.TITLES.keys())
    return " and ".join([*([PROFILES.get(suite.profile, suite.profile)] if wholes & naming.TITLES.keys() or not own else []),
                         *own])


def figures_of(shown: Iterable[Section]) -> list[FigureData]:
    """Every figure of the report, in order."""
    return [block for section in shown for block in section.every() if isinstance(block, FigureData)]


def tables_of(shown: Iterable[Section]) -> list[Table]:
    """Every table of the report, in order."""
    return [block for section in shown for block in section.every() if isinstance(block, Table)]
