"""A data set of one's own, declared in a YAML file: the split that comes of it, its identity, and what is refused."""
from __future__ import annotations

import hashlib
import shutil

import pytest
import yaml
from support.own_set import ROLES, SEEN, SIZES, UNSEEN, declare, make_set, write_words
from support.trees import make_tree

from tcn.config import BUILT_IN, Config, InputError, change, identity
from tcn.data import declared, doctor, specs, splits


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    make_set(root)
    return root


def loaded(path, **options):
    return splits.load(declared.named(str(path)), data_root=None, cache=path.parent, progress=False, **options)


def digests(path):
    found = declared.read(path)
    split = loaded(path)
    return found.declared, split.data_digest, split.split_digest


def files_of(root, folder, names):
    """The same list, read from the disk alone: classes by their names without case, files by name."""
    order = sorted(names, key=lambda name: name.lower().replace("-", " ").replace("_", " "))
    return [f"{folder}/{name}/{path.name}" for name in order for path in sorted((root / folder / name).iterdir())]


def smallest(name, files, count):
    """Naive form of the rule for held-out files: by the sha256 of class and file name, a fifth at the most."""
    form = name.lower().replace("-", " ").replace("_", " ")
    ranked = sorted(files, key=lambda file: hashlib.sha256(f"{form}/{file}".encode()).hexdigest())
    return set(ranked[:min(count, max(1, len(files) // 5))]) if len(files) > 1 else set()


# ------------------------------------------------------------------------------------------------------------ the split
def test_roles_by_name_give_the_lists_of_the_folders(whole):
    split = loaded(whole / "my_set.yaml")
    assert (split.dataset, split.name) == ("little_zoo", "fixed")
    assert set(split.seen) == set(SEEN) and split.unseen == UNSEEN and split.validation == ()
    assert list(split.query.paths) == files_of(whole, "drawings", UNSEEN)
    assert list(split.gallery.paths) == files_of(whole, "pictures", UNSEEN)
    assert list(split.train_photos.paths) == files_of(whole, "pictures", SEEN)
    kept = {name: smallest(name, [path.name for path in (whole / "drawings" / name).iterdir()], 2) for name in SEEN}
    assert {name: len(files) for name, files in kept.items()} == {"ant": 1, "bee": 1, "cow": 2, "Palm tree": 1, "zip": 1}
    every = files_of(whole, "drawings", SEEN)
    assert list(split.heldout_sketches.paths) == [path for path in every if path.split("/")[2] in kept[path.split("/")[1]]]
    assert sorted([*split.train_sketches.paths, *split.heldout_sketches.paths]) == sorted(every)
    assert [split.classes[label] for label in split.query.labels] == [path.split("/")[1] for path in split.query.paths]


def test_photos_are_held_out_by_the_same_rule_where_the_file_says_so(whole):
    path = declare(whole, "held.yaml", name="held_zoo", held_out={"sketches": 1, "photos": 1})
    split = loaded(path)
    kept = {f"pictures/{name}/{file}" for name in SEEN
            for file in smallest(name, [one.name for one in (whole / "pictures" / name).iterdir()], 1)}
    assert len(kept) == len(SEEN)
    assert list(split.train_photos.paths) == [one for one in files_of(whole, "pictures", SEEN) if one not in kept]


@pytest.mark.parametrize("seed", [0, 3, 41])
def test_a_seed_draws_the_roles_as_a_naive_ranking_does(whole, seed):
    path = declare(whole, f"seeded{seed}.yaml", name="drawn_zoo", seen=None, unseen=None,
                   split={"unseen": 3, "validation": 2, "seed": seed})
    forms = {name.lower().replace("-", " ").replace("_", " "): name for name in SIZES}
    ranked = [forms[form] for form in sorted(forms, key=lambda form: hashlib.sha256(f"{seed}/{form}".encode()).hexdigest())]
    split = loaded(path)
    assert (set(split.unseen), set(split.validation), set(split.seen)) == (set(ranked[:3]), set(ranked[3:5]), set(ranked[5:]))
    by_name = declare(whole, f"named{seed}.yaml", name="drawn_zoo", seen=list(split.seen), unseen=list(split.unseen),
                      validation=list(split.validation))
    assert digests(path) == digests(by_name)  # how the roles were found is no matter of the runs


def test_validation_classes_are_carved_out_of_the_seen_ones(whole):
    declared.named(str(whole / "my_set.yaml"))
    split = loaded(whole / "my_set.yaml", validation="carved")
    least = min(SEEN, key=lambda name: hashlib.sha256(name.lower().encode()).hexdigest())
    assert split.validation == (least,) and set(split.seen) == set(SEEN) - {least} and split.unseen == UNSEEN
    assert len(split.validation_sketches) == SIZES[least][0] and len(split.validation_photos) == SIZES[least][1]
    path = declare(whole, "own.yaml", name="own_zoo", seen=list(SEEN[:3]), validation=list(SEEN[3:]))
    with pytest.raises(InputError, match="validation classes of its own"):
        loaded(path, validation="carved")
    path = declare(whole, "few.yaml", name="few_zoo", seen=list(SEEN[:3]), left_out=list(SEEN[3:]))
    with pytest.raises(InputError, match="15% of 3 seen classes of 'few_zoo' are none"):
        loaded(path, validation="carved")


def test_classes_left_out_and_samples(whole):
    split = loaded(declare(whole, "less.yaml", name="less_zoo", seen=list(SEEN[1:]), left_out=["ANT"], sample=2))
    assert set(split.seen) == set(SEEN[1:]) and len(split.query) == 6 and len(split.gallery) == 5


def test_a_built_in_split_declared_by_hand_has_the_same_lists(tmp_path):
    base = make_tree(tmp_path, "quickdraw", sketches=6, photos=2, size=2)
    plan = specs.read_plan("quickdraw")
    built_in = splits.load("quickdraw", data_root=tmp_path, cache=tmp_path, lists="none", progress=False)
    path = declare(base, name="by_hand", sketches="QuickDraw_sketches_final", photos="QuickDraw_images_final",
                   seen=list(plan.of("seen")), unseen=list(plan.of("unseen")), held_out={"sketches": plan.held_out_per_class})
    own = loaded(path)
    for role, files in built_in.lists().items():
        assert sorted(own.lists()[role].paths) == sorted(files.paths), role
    assert len(own.heldout_sketches) == len(plan.of("seen"))


# --------------------------------------------------------------------------------------------------------- the identity
def test_a_moved_folder_and_another_order_keep_the_digests(whole, tmp_path):
    before = digests(whole / "my_set.yaml")
    moved = tmp_path / "elsewhere" / "deep"
    shutil.copytree(whole, moved)
    (moved / "drawings").rename(moved / "sketches of mine")
    said = {"unseen": list(UNSEEN[::-1]), "held_out": {"sketches": 2}, "photos": "pictures", "sketches": "sketches of mine",
            "seen": list(SEEN[::-1]), "name": "little_zoo", "root": str(moved)}
    path = tmp_path / "another name.yml"
    path.write_text("# a remark\n" + yaml.safe_dump(said, sort_keys=False))
    assert digests(path) == before
    assert [one.removeprefix("sketches of mine/") for one in loaded(path).query.paths] == [
        one.removeprefix("drawings/") for one in loaded(whole / "my_set.yaml").query.paths]


@pytest.mark.parametrize("changes, same", [
    ({"held_out": {"sketches": 1}}, (False, True, False)),
    ({"held_out": {"sketches": 2, "photos": 1}}, (False, True, False)),
    ({"seen": [*SEEN[:4], "elk"], "unseen": ["dog", "zip", "hot-air_balloon"]}, (False, True, False)),
    ({"drawn_from": "(.+)-[0-9]"}, (False, True, True)),
    ({"sample": 1}, (False, False, False)),
    ({"words": "words.csv"}, (True, True, True))])
def test_what_changes_a_run_changes_a_digest(whole, changes, same):
    before, after = digests(declare(whole, "before.yaml")), digests(declare(whole, "after.yaml", **changes))
    assert tuple(a == b for a, b in zip(before, after, strict=True)) == same


def test_the_setting_enters_the_identity_of_own_data_sets_alone():
    # as it was before there was such a setting
    assert identity(Config(), "d", "s", "w") == "5e0c611ef93bfc69fcbfb93916d93cd9b985e27ebd8aff129db1a432b82d9707"
    own = {"data.dataset": "little_zoo", "data.declared": f"file:{'a' * 64}"}
    other = {**own, "data.declared": f"file:{'b' * 64}"}
    assert len({identity(change(Config(), delta), "d", "s", "w") for delta in ({}, own, other)}) == 3
    for wrong in ({"data.dataset": "little_zoo"}, {"data.declared": f"file:{'a' * 64}"},
                  {**own, "data.dataset": "sketchy-first9"}, {**own, "data.dataset": "Zoo"}, {**own, "data.split": "1"}):
        with pytest.raises(InputError, match="setting 'data"):
            change(Config(), wrong)


def test_built_in_data_sets_pass_the_same_door():
    for name, found in specs.SPECS.items():
        assert found.declared == BUILT_IN and found.plan is None and found.root is None
        assert specs.spec(name)[0] is found and specs.read_plan(name).roles


# ------------------------------------------------------------------------------------------------------------ the doctor
def test_the_doctor_checks_it_without_a_data_root(whole, tmp_path):
    name = declared.named(str(whole / "my_set.yaml"))
    [report], status = doctor.check_all([name], data_root=None, cache=tmp_path, progress=False)
    assert (status, report.state, report.problems) == (0, "whole", [])
    assert report.counts["query"]["entries"] == 10 and report.totals["photos"]["files"] == sum(n for _, n in SIZES.values())
    assert report.words["alike"] == [] and report.content_digest


def test_the_doctor_finds_leaks_by_content_empty_folders_and_words_that_lack(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "set")
    root = tmp_path / "set"
    shutil.copy(root / "pictures" / "ant" / "0-0.jpg", root / "pictures" / "dog" / "9.jpg")
    for path in (root / "drawings" / "elk").iterdir():
        path.unlink()
    write_words(root / "words.csv", leave_out=("bee",))
    name = declared.named(str(declare(root, words="words.csv", name="sick_zoo")))
    [report], status = doctor.check_all([name], data_root=None, cache=tmp_path, progress=False)
    said = "\n".join(report.problems)
    assert status == 1 and "leak: train_photos and gallery share" in said
    assert "drawings: 1 class folder without any image: elk" in said and "no row for 1 of 5 class names: bee" in said


# ------------------------------------------------------------------------------------------------------------- refusals
NO_ROLES = {"seen": None, "unseen": None}


@pytest.mark.parametrize("changes, words", [
    ({"unseen": [*UNSEEN, "bee"]}, ["'bee' stands under seen and unseen"]),
    ({"seen": [*SEEN, "Hot air balloon"]}, ["'Hot air balloon' and 'hot-air_balloon' are one class", "seen and unseen"]),
    ({"seen": [*SEEN, "palm_tree"]}, ["'Palm tree' and 'palm_tree' are one class", "seen twice"]),
    ({"seen": [*SEEN, "ant"]}, ["'ant' stands under seen twice"]),
    ({"unseen": ["dog", "elc", "hot-air_balloon"]}, ["unseen: 'elc' has no folder in drawings; did you mean 'elk'?"]),
    ({"seen": list(SEEN[1:])}, ["1 class folder in drawings without a role: ant", "left_out"]),
    ({"unseen": ["dog"], "left_out": ["elk", "hot-air_balloon"]}, ["1 unseen class, and at least 2 are needed"]),
    ({"seen": None, "left_out": list(SEEN)}, ["0 seen classes"]),
    ({"seen": [*SEEN, True]}, ["seen.5 is True", "valid string", "quotes"]),
    ({"seen": [*SEEN, "a/b"]}, ["seen.5 is 'a/b'", "without slashes"]),
    ({"seen": "ant"}, ["seen is 'ant'", "list"]),
    ({"name": None}, ["names no name"]),
    ({"name": "sketchy"}, ["name is 'sketchy', which is built in"]),
    ({"name": "Little Zoo"}, ["name is 'Little Zoo'", "lower-case"]),
    ({"name": "sketchy-first25"}, ["name is 'sketchy-first25'"]),
    ({"photos": None}, ["names no photos"]),
    ({"photos": "gone"}, ["photos: ", "gone is not a folder"]),
    ({"photos": "drawings"}, ["photos: drawings is the folder of the sketches too"]),
    ({"photos": "/tmp"}, ["photos is '/tmp'", "below root"]),
    ({"sketches": "../drawings"}, ["sketches is '../drawings'", "below root"]),
    ({"root": "nowhere"}, ["sketches: ", "nowhere/drawings is not a folder"]),
    ({"words": "gone.csv"}, ["words: ", "gone.csv is not a file"]),
    ({"unsen": []}, ["unknown key 'unsen'", "unseen"]),
    ({"held_out": {"drawings": 3}}, ["unknown key 'held_out.drawings'", "sketches, photos"]),
    ({"held_out": {"sketches": 0}}, ["held_out.sketches is 0", "greater than or equal to 1"]),
    ({"sample": "2"}, ["sample is '2'", "integer"]),
    ({"drawn_from": "(.+"}, ["drawn_from is '(.+'", "no regular expression"]),
    ({"drawn_from": ".+"}, ["drawn_from is '.+'", "needs a group"]),
    ({"split": {"unseen": 3, "seed": 1}}, ["split draws the roles, and seen and unseen name some"]),
    ({**NO_ROLES, "split": {"unseen": 3}}, ["names no split.seed"]),
    ({**NO_ROLES, "split": {"unseen": 3, "seed": -1}}, ["split.seed is -1"]),
    ({**NO_ROLES, "split": {"unseen": 1, "seed": 1}}, ["split.unseen is 1"]),
    ({**NO_ROLES, "split": {"unseen": 7, "seed": 1}}, ["split: 7 unseen classes of 8 leave 1 seen"]),
    ({**NO_ROLES, "split": {"unseen": 25, "seed": 1}}, ["split: 25 unseen classes of 8 leave 0 seen"]),
    ({**NO_ROLES, "split": {"unseen": 4, "validation": 3, "seed": 1}}, ["4 unseen and 3 validation classes of 8 leave 1 seen"]),
    (NO_ROLES, ["8 class folders in drawings without a role"])])
def test_a_wrong_file_is_refused_in_one_line_that_names_it(whole, changes, words):
    path = declare(whole, "wrong.yaml", **changes)
    with pytest.raises(InputError) as caught:
        declared.named(str(path))
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("text, words", [
    ("name: [a\nsketches: b", ["line 2 is no YAML"]), ("- a\n- b\n", ["holds a list in place of keys and values"]),
    ("", ["NoneType"]),
    ("a: &a [x, x, x, x, x, x, x, x, x]\n"
     + "".join(f"{n}: &{n} [{', '.join(9 * ['*' + m])}]\n" for m, n in zip("abcdefghijk", "bcdefghijkl"))
     + "name: *l\nsketches: *l\n", ["name is [["]),
    ("seen: [a]\nname: b\nseen: [c]\n", ["line 3 is no YAML", "the key 'seen' stands in line 1 already"]),
    ("name: b\nsplit: {seed: 1, unseen: 2, seed: 1}\n", ["line 2", "the key 'seed' stands in line 2 already"]),
    ("a: &a {x: 1}\nb: {<<: *a, x: 2}\n", ["names no name"]),  # a merged key may be given anew
    ("name: *x\n", ["no YAML"]), ("[" * 3000, ["no YAML"]), ("!!python/object:os.system {}", ["no YAML"])])
def test_what_is_no_such_yaml_is_refused(tmp_path, text, words):
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        declared.read(tmp_path / "wrong.yaml")
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in ["wrong.yaml", *words]), caught.value


def test_files_that_are_not_there_or_share_a_name_are_named(whole, tmp_path):
    with pytest.raises(InputError, match=r"gone\.yaml can't be read"):
        declared.named(str(tmp_path / "gone.yaml"))
    first, second = declare(whole, "first.yaml"), declare(whole, "second.yaml")
    with pytest.raises(InputError, match="both declare 'little_zoo'"):
        declared.all_named([str(first), str(second)])
    assert declared.all_named(["sketchy/1", str(first), "emoji", str(first)]) == ["sketchy/1", "little_zoo", "emoji"]


@pytest.mark.parametrize("folder, changes, words", [
    ("drawings/palm_tree", {}, ["the folders 'Palm tree' and 'palm_tree' in ", "are one class; merge them"]),
    ("drawings/owl", {}, ["1 class folder in drawings without a role: owl"]),
    ("pictures/owl", {**NO_ROLES, "split": {"unseen": 3, "seed": 1}}, ["owl in pictures has no folder in drawings"]),
    ("drawings/owl", {**NO_ROLES, "split": {"unseen": 3, "seed": 1}}, ["owl in drawings has no folder in pictures", "left_out"]),
    ("pictures/owl", {"seen": [*SEEN, "owl"]}, ["seen: 'owl' has no folder in drawings"])])
def test_folders_that_do_not_fit_are_named(whole, tmp_path, folder, changes, words):
    root = tmp_path / "set"
    shutil.copytree(whole, root)
    (root / folder).mkdir()
    with pytest.raises(InputError) as caught:
        declared.read(declare(root, **changes))
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words), caught.value
    assert (set(declared.read(declare(root, seen=None, unseen=None, left_out=["owl"], split={"unseen": 3, "seed": 1})).plan.roles)
            == set(SIZES) if folder.endswith("owl") else ROLES)


# ------------------------------------------------------------------------------------------------------ the wider gallery
def test_a_generalised_gallery_holds_the_seen_photos_that_training_did_not_use(whole):
    path = declare(whole, "held.yaml", name="held_zoo", held_out={"sketches": 1, "photos": 1})
    plain, wide = loaded(path), splits.load("held_zoo-generalised", data_root=None, cache=whole, progress=False)
    apart = sorted(set(files_of(whole, "pictures", SEEN)) - set(plain.train_photos.paths))
    assert sorted(wide.gallery.paths) == sorted([*apart, *plain.gallery.paths]) and len(apart) == len(SEEN)
    assert [wide.classes[label] for label in wide.gallery.labels] == [path.split("/")[1] for path in wide.gallery.paths]
    assert any("5 of seen ones, which training did not use" in note for note in wide.notes)
    for role in ("query", "train_sketches", "train_photos", "heldout_sketches"):
        assert getattr(wide, role).paths == getattr(plain, role).paths
    assert ((wide.dataset, wide.data_digest) == ("held_zoo-generalised", plain.data_digest)
            and wide.split_digest != plain.split_digest)


def test_where_training_uses_all_photos_they_all_stand_in_it_and_a_note_says_so(whole):
    plain = loaded(whole / "my_set.yaml")
    wide = splits.load("little_zoo-generalised", data_root=None, cache=whole, progress=False)
    assert wide.gallery.paths == (*plain.train_photos.paths, *plain.gallery.paths)
    assert any("17 of seen ones, which training used too" in note for note in wide.notes)
    carved = splits.load("little_zoo-generalised", data_root=None, cache=whole, progress=False, validation="carved")
    assert not set(carved.validation_photos.paths) & set(carved.gallery.paths)


@pytest.mark.parametrize("name", ["sketchy-generalised", "sketchy-first25-generalised", "emoji-generalised",
                                  "tuberlin-generalised"])
def test_built_in_data_sets_and_parts_have_the_wider_form_too(name):
    plain = name.removesuffix("-generalised")
    one, other = specs.spec(name)[0], specs.spec(plain)[0]
    assert (one.generalised and not other.generalised and one.photo_folders == other.photo_folders
            and one.list_files == other.list_files)
    assert (specs.read_plan(name).roles == specs.read_plan(plain).roles
            and specs.read_plan(name).counts == specs.read_plan(plain).counts)
    assert specs.read_plan(name).dataset == name
    assert change(Config(), {"data.dataset": name, "data.split": one.splits[0]}).data.dataset == name
