"""What a grid costs: shapes that cost alike, rates measured once and kept, sums by hand, the plan without any data."""
from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import baselines
from benchmarks import experiments, provenance, run_all
from benchmarks.launch import calibration
from benchmarks.launch import cost as launch_cost
from benchmarks.launch.calibration import Calibration, Rate, ScoringShape, scoring_shape, training_shape
from benchmarks.launch.cost import Sizes
from benchmarks.material import Material, Places
from benchmarks.records import write_json, write_table
from benchmarks.store import RunFolder
from tcn.config import to_dict
from tcn.data.decode import decode

SMALL = {"network.backbone": "resnet18", "network.dim": 8, "data.image_size": 32, "data.stored_size": 32,
         "losses.semantic": 0.0}


def planned(*variants: str, **settings) -> dict[str, experiments.PlannedRun]:
    """Runs of the paper profile on QuickDraw by variant, with small networks and no need of word vectors."""
    overrides = {**SMALL, **{key.replace("__", "."): value for key, value in settings.items()}}
    return {one_run.variant: one_run for one_run in experiments.plan(experiments.PROFILES["paper"], ["quickdraw"], variants, [3],
                                                            overrides, False)}


@pytest.fixture(scope="module")
def material(place) -> Material:
    return Material(Places(place / "cache", place / "data", progress=False))


@pytest.fixture
def brief(monkeypatch) -> None:
    """Measurements as short as they can be: how long they take is not what is tested."""
    monkeypatch.setattr(calibration, "SHAPE_SECONDS", 0.1)
    monkeypatch.setattr(calibration, "TIMED_SECONDS", 0.02)
    # A machine that stands still for a moment must not change which way a step is measured.
    monkeypatch.setattr(calibration, "STEP_SECONDS", 1e9)


def test_runs_of_one_shape_are_measured_once():
    runs = planned("main", "leave-one-out", "hws-separate", "ledger", "weights")
    shapes = {name: training_shape(one_run.config) for name, one_run in runs.items()}
    for alike in ("tcn-shared-bn", "tcn-weight-0.1", "tcn-no-semantic", "ledger-words", "ledger-loader"):
        assert shapes[alike] == shapes["tcn"]
    for other in ("hws", "nws", "hws-separate", "tcn-no-teacher", "ledger-batch-norm-split"):
        assert shapes[other] != shapes["tcn"]
    assert (shapes["tcn"].encoders, shapes["tcn"].tied) == (2, True)
    assert (shapes["nws"].encoders, shapes["nws"].tied) == (2, False)
    assert (shapes["hws"].encoders, shapes["hws"].joint, shapes["hws-separate"].joint) == (1, True, False)
    assert not shapes["tcn-no-teacher"].teacher
    controls = {name: training_shape(one_run.config) for name, one_run in planned("controls").items()}
    assert controls["frozen-conv"] != controls["hard-conv"] and controls["squared"] != shapes["tcn"]
    assert training_shape(planned("tcn", data__batch_pairs=64)["tcn"].config) != shapes["tcn"]


def test_pictures_are_resized_as_in_the_run_that_is_costed(tmp_path, monkeypatch, brief):
    how = []
    monkeypatch.setattr(calibration, "extract", lambda *given, resize: how.append(resize))
    monkeypatch.setattr(calibration, "MOST_PICTURES", 16)
    runs = {resize: planned("tcn", data__resize=resize)["tcn"] for resize in ("float", "rounded")}
    for resize, one_run in runs.items():
        Calibration(tmp_path, torch.device("cpu"), say=lambda text: None).extraction(one_run)
        assert how and set(how) == {resize}
        how.clear()
    for shape in (training_shape, calibration.extraction_shape):
        assert len({shape(one_run.config) for one_run in runs.values()}) == 2


def test_scoring_depends_on_the_features_that_are_scored():
    runs = planned("untrained-imagenet", "untrained-svd")
    assert scoring_shape(runs["untrained-imagenet"].config, 60) == ScoringShape(60, 512, 8)
    assert scoring_shape(runs["untrained-svd"].config, 60) == ScoringShape(60, 8, 8)


def test_rates_are_measured_once_kept_and_forced_anew(tmp_path, brief):
    one_run, said = planned("tcn")["tcn"], []
    first = Calibration(tmp_path, torch.device("cpu"), say=said.append)
    rates = [first.training(one_run), first.extraction(one_run), first.scoring(one_run, 20, 60), first.decoding(32)]
    assert all(rate.per_second > 0 for rate in rates) and rates[0].units == 32 and len(said) == 4
    # Two ResNet-18 of 11.2 million numbers each, at 4 bytes.
    assert 2 * 44e6 < rates[0].model_bytes < 2 * 46e6 and rates[0].host_bytes > rates[0].model_bytes
    kept = json.loads((tmp_path / "calibration.json").read_text())
    assert len(kept) == 4 and all(entry["of"][2] == provenance.device_name(torch.device("cpu")) for entry in kept.values())
    again = Calibration(tmp_path, torch.device("cpu"), say=said.append)
    assert [again.training(one_run), again.extraction(one_run), again.scoring(one_run, 20, 60), again.decoding(32)] == rates
    assert len(said) == 4
    forced = Calibration(tmp_path, torch.device("cpu"), force=True, say=said.append)
    assert forced.decoding(32) == forced.decoding(32) and len(said) == 5


def test_other_code_is_measured_anew(tmp_path, monkeypatch, brief):
    said = []
    Calibration(tmp_path, torch.device("cpu"), say=said.append).decoding(16)
    monkeypatch.setattr(calibration, "_code", lambda: "other")
    Calibration(tmp_path, torch.device("cpu"), say=said.append).decoding(16)
    assert len(said) == 2


def test_a_long_step_is_reckoned_from_two_short_ones(tmp_path, monkeypatch):
    """Steps of 3 s + 0.5 s a pair: 5 s for 4 pairs, 9 s for 12, hence 19 s for 32."""
    monkeypatch.setattr(calibration, "_measure_extraction", lambda *_: Rate(1.0, 1, 16))
    monkeypatch.setattr(calibration, "_time_steps", lambda c, m, d, f, pairs, steps, warm: (3 + 0.5 * pairs, 1))
    rate = calibration._measure_training(planned("tcn")["tcn"], torch.device("cpu"), tmp_path)
    assert rate.per_second == pytest.approx(32 / 19) and (rate.steps, rate.units) == (2, 12)


def test_precision_over_recall_is_part_of_what_scoring_costs(monkeypatch):
    """A whole sort of the gallery for each query, once a run, of the features alone."""
    asked = []
    monkeypatch.setattr(calibration, "TIMED_SECONDS", 0.0)
    monkeypatch.setattr(calibration.metrics, "precision_recall", lambda q, g, *labels, device: asked.append((q.shape, g.shape)))
    calibration._measure_scoring(ScoringShape(60, 7, 5), 20, torch.device("cpu"))
    assert asked == [((4, 7), (60, 7)), ((20, 7), (60, 7))]


def test_pictures_are_files_that_the_cache_can_read(tmp_path):
    for modality in calibration.Modality:
        names = calibration.draw_pictures(tmp_path, modality, 48)
        shapes = {decode(tmp_path / name, 24).shape[:2] for name in names}
        assert shapes == {(24, 24)} and len({(tmp_path / name).read_bytes() for name in names}) == calibration.PICTURES


@pytest.mark.parametrize("dataset, split, expected", [
    ("sketchy", "1", Sizes(55252, 68401, 5000, 0, 0, 15229, 17101)),
    ("tuberlin", "1", Sizes(15400, 204489 - 27989, 2200, 0, 0, 2400, 27989)),
    ("quickdraw", "1", Sizes(330000 - 92291 - 80 * 50, 204000 - 54151, 4000, 0, 0, 92291, 54151)), ("emoji", "fixed", None)])
def test_published_counts_stand_in_for_data_that_is_not_here(dataset, split, expected):
    assert launch_cost.published_sizes(dataset, split) == expected


class Fixed(Calibration):
    """Rates by hand: 100 pairs/s, 50 images/s, 10 queries/s, 20 files/s."""

    def training(self, one_run):
        return Rate(100.0, 3, 32, host_bytes=10**9, model_bytes=10**8)

    def extraction(self, one_run):
        return Rate(50.0, 1, 64)

    def scoring(self, one_run, queries, gallery):
        return Rate(10.0, 1, 32)

    def decoding(self, size):
        return Rate(20.0, 1, 1)


def test_cost_by_hand(place, material, tmp_path):
    """The small QuickDraw: 160 training photos, 160 training and 80 held-out sketches, 90 queries, 60 photos; 10 epochs."""
    split = material.split("quickdraw", "1")
    sizes = launch_cost.sizes_of(split)
    assert sizes == Sizes(160, 160, 80, 0, 0, 90, 60)
    runs = planned("tcn", "hws", "untrained-svd")
    result = launch_cost.estimate(list(runs.values()), tmp_path / "out", material, Fixed(tmp_path, torch.device("cpu")), {})
    tcn, hws, untrained_row = (next(c for c in result.costs if c.run.variant == v) for v in ("tcn", "hws", "untrained-svd"))
    assert (hws.epochs, hws.pairs, hws.state) == (10, 1600, "to do")
    assert hws.train == pytest.approx(1600 / 100 + 10 * 80 / 50)
    assert hws.extract == pytest.approx((160 + 160 + 90 + 60) / 50) and hws.score == pytest.approx(90 / 10)
    assert tcn.extract == pytest.approx((160 + 160 + 90 + 60 + 60) / 50), "the ledger reads the photos' other side too"
    assert tcn.score == pytest.approx(90 / 10 * (1 + launch_cost.LEDGER_PASSES))
    assert (untrained_row.train, untrained_row.epochs) == (0, 0) and untrained_row.extract == hws.extract
    text = "\n".join(result.lines)
    assert "3 runs; " in text and "CPU-hours left" in text and "(rough: 3 steps of up to 32 pairs)" in text
    # 330 sketches of one byte and 220 photos of three, at 32 x 32 pixels: 1,013,760 bytes.
    assert "image cache 1 MB" in text and "400 MB for each run while it trains" in text and "memory: 1.0 GB" in text
    assert not (tmp_path / "out").exists()


def test_epochs_run_here_on_this_device_count_before_the_calibration(place, material, tmp_path):
    runs, device = planned("tcn", "nws"), torch.device("cpu")
    one_run = runs["tcn"]
    here = provenance.device_name(device)
    for seed, where, gpus, rates in ((4, here, 1, (40.0, 50.0, 60.0)), (5, "another GPU", 1, (9e9,)), (6, here, 2, (8e9,))):
        config = replace(one_run.config, seed=seed)
        folder = RunFolder(tmp_path, replace(one_run, config=config), f"{seed:064x}")
        write_table(folder.path / "history.csv", [{"epoch": 0}, *({"epoch": i, "pairs_per_second": r} for i, r in
                                                                 enumerate(rates, 1))], ("epoch", "pairs_per_second"))
        write_json(folder.path / "provenance.json", {"device": where, "threads": torch.get_num_threads(),
                                                           **({"gpus_per_run": gpus} if gpus > 1 else {})})
        write_json(folder.path / "config.json", {**to_dict(config), "variant": "tcn", "identity": ""})
    assert launch_cost.kept_rates(tmp_path, provenance.device_name(device), torch.get_num_threads()) == {
        training_shape(one_run.config): [40.0, 50.0, 60.0]}
    result = launch_cost.estimate(list(runs.values()), tmp_path, material, Fixed(tmp_path, device), {})
    train = {cost.run.variant: cost.train for cost in result.costs}
    assert train["tcn"] == pytest.approx(1600 / 50 + 16) and train["nws"] == pytest.approx(1600 / 100 + 16)
    assert any("training, tcn: 50 pairs/s, median of the epochs run here" in line for line in result.lines)


def test_epochs_already_done_cost_nothing(place, material, tmp_path):
    one_run = planned("tcn")["tcn"]
    folder = RunFolder(tmp_path, one_run, material.identity(one_run.config))
    folder.set_state("interrupted", epochs_done=7)
    fixed = Fixed(tmp_path, torch.device("cpu"))
    cost = launch_cost.estimate([one_run], tmp_path, material, fixed, {}).costs[0]
    assert (cost.epochs, cost.pairs, cost.state) == (3, 480, "interrupted, 7/10 epochs")
    folder.set_state("finished", epochs_done=10)
    cost = launch_cost.estimate([one_run], tmp_path, material, fixed, {}).costs[0]
    assert cost.seconds == 0 and cost.state == "finished, 10/10 epochs"


def test_every_variant_and_group_is_costed(tmp_path, capsys, monkeypatch, brief):
    """One of them that can't be built from random weights and words would cost the plan of all."""
    monkeypatch.delenv("TCN_DATA", raising=False)
    for what in ("scoring", "extraction"):  # know no methods
        monkeypatch.setattr(Calibration, what, lambda *_: Rate(10.0, 1, 32))
    monkeypatch.setattr(calibration, "_measure_extraction", lambda *_: Rate(10.0, 1, 32))
    monkeypatch.setattr(calibration, "_time_steps", lambda *_, **__: (1.0, 1))  # steps of all methods are taken by other tests
    wide = [name for name, variant in baselines.VARIANTS.items() if variant.delta.get("network.dim", 0) > 96]
    others = ([group for group in baselines.GROUPS if group != "dimensions"]
              + [name for name in baselines.VARIANTS if name not in wide])
    printed, rows = "", {}
    for backbone, variants in (("test_resnet", others), ("resnet18", wide)):  # the smallest has 96 features
        status = run_all.main(["--dry-run", "--profile", "paper", "--datasets", "tuberlin", "--variants", *variants,
                               "--device", "cpu", "--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "out"), "--set",
                               f"network.backbone={backbone}", "data.image_size=32", "data.stored_size=32", "data.batch_pairs=4"])
        captured = capsys.readouterr()
        assert status == 0, captured.err
        printed += captured.out
        rows |= {line.split()[2]: line for line in captured.out.splitlines() if line.startswith("tuberlin")}
    for name, variant in baselines.VARIANTS.items():
        if name not in rows:
            assert variant.grid_point, name
            continue
        assert "unknown" not in rows[name] and "not here" in rows[name]
        assert (f"training, {name}:" in printed) == (variant.delta.get("training.optimizer") != "none"), name


def test_the_paper_s_grid_is_costed_without_its_data(place, tmp_path, capsys, monkeypatch, brief):
    monkeypatch.delenv("TCN_DATA", raising=False)
    monkeypatch.setenv("TCN_CACHE_FORM", "compact")
    status = run_all.main(["--dry-run", "--profile", "paper", "--datasets", "sketchy", "tuberlin", "--variants", "hws",
                           "--device", "cpu", "--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "out"), "--set",
                           "network.backbone=resnet18", "data.image_size=32", "data.stored_size=32"])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    assert captured.out.count("not here") == 3 + 1 and "684,010" in captured.out and "1,765,000" in captured.out
    assert "missing: sketchy" in captured.out and "by the published counts" in captured.out
    assert "CPU-hours" in captured.out and "GPU-hours" not in captured.out and "image cache" in captured.out
    # At 32 pixels a quarter of a byte a pixel for sketches, 1.6 bytes for photos, which are scaled:
    # 75,481 and 85,502; 20,000 and 204,489.
    assert "sketchy 159 MB, compact" in captured.out and "tuberlin 340 MB, compact" in captured.out
    assert not (tmp_path / "out").exists()
