"""From folder names to class indices: right where the names tell, none with a reason where they do not."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrim.calibration.images.folders import Tree
from vitrim.calibration.images.labels import Labelled, label_tree, place, read_classes
from vitrim.exporter.core.errors import InputError


def tree_of(names: list[str], flat: int = 0, each: int = 1, empty: tuple[str, ...] = ()) -> Tree:
    """A listed folder whose pictures lie in folders of these names, which may be paths."""
    root = Path("/photos")
    folders: dict[str, list[Path]] = {name: [] for name in empty}
    for name in sorted(names):
        top = name.split("/")[0]
        folders.setdefault(top, []).extend(root / name / f"{index}.jpg" for index in range(each))
    return Tree(root, [root / f"{index}.jpg" for index in range(flat)], dict(sorted(folders.items())), set(empty))


def by_folder(found: Labelled) -> dict[str, int]:
    assert found.labels is not None, found.notes
    return {
        path.parent.relative_to("/photos").as_posix(): int(label)
        for path, label in zip(found.paths, found.labels, strict=True)
    }


@pytest.mark.parametrize("form", ["{}", "{:04}"])
def test_numbers_are_the_classes_padded_or_not(form: str) -> None:
    names = [form.format(index) for index in range(1000)]
    found = label_tree(tree_of(names), 1000)
    assert by_folder(found) == {name: int(name) for name in names}
    assert found.notes == ("labels: 1000 folders named by number, class = name",)
    some = random.Random(0).sample(names, 30)
    assert by_folder(label_tree(tree_of(some), 1000)) == {name: int(name) for name in some}
    assert by_folder(label_tree(tree_of(["7"]), 1000)) == {"7": 7}


def test_wnids_are_placed_by_the_list_of_the_model_s_classes() -> None:
    some = ["n02123045", "n01440764", "n15075141", "n01443537"]
    found = label_tree(tree_of(some), 1000)
    assert by_folder(found) == {"n01440764": 0, "n01443537": 1, "n02123045": 281, "n15075141": 999}
    assert found.notes == ("labels: 4 folders named by WNID, class = place in timm's list of imagenet-1k",)
    assert by_folder(label_tree(tree_of(["n02123045-tabby", "n01440764_tench 1"]), 1000)) == {
        "n02123045-tabby": 281,
        "n01440764_tench 1": 0,
    }
    from timm.data import ImageNetInfo

    for classes, subset in ((11821, "imagenet-12k"), (21843, "imagenet-21k-goog"), (21841, "imagenet-22k")):
        wanted = ImageNetInfo(subset).label_names().index("n02123045")
        assert by_folder(label_tree(tree_of(["n02123045"]), classes)) == {"n02123045": wanted}


def test_wnids_of_a_model_of_its_own_classes_go_in_order() -> None:
    assert by_folder(label_tree(tree_of(["n02123045", "n01440764"]), 2)) == {"n01440764": 0, "n02123045": 1}


def test_names_go_in_order_where_there_are_as_many_as_classes() -> None:
    found = label_tree(tree_of(["dog", "ant", "cat"]), 3)
    assert by_folder(found) == {"ant": 0, "cat": 1, "dog": 2}
    assert found.notes == ("labels: 3 folders in order of their names, ant = 0 to dog = 2",)
    assert by_folder(label_tree(tree_of(["ant", "dog"], empty=("cat",)), 3)) == {"ant": 0, "dog": 2}


@pytest.mark.parametrize(
    ("names", "classes", "said"),
    [
        (["ant", "dog"], 1000, "2 folders do not name the model's 1000 classes"),
        (["ant"], 7, "1 folder does not name the model's 7 classes"),
        (["0", "1000"], 1000, "the folder 1000 is none of the model's classes 0 to 999"),
        (["1", "2", "3"], 3, "the folder 3 is none of the model's classes 0 to 2 (do they count from 1?)"),
        (["1", "01", "0"], 9, "two folders are the same number, with and without zeros before it"),
        (["n01440764", "n00000000"], 1000, "1 of 2 WNIDs are not in imagenet-1k, such as n00000000"),
        (["n01440764", "n014437890"], 1000, "2 folders do not name the model's 1000 classes"),
        (["class_2", "class_10"], 2, "the folders' names have two orders, with class_10 before class_2 and after it"),
        (["10_dog", "2_cat"], 2, "the folders' names have two orders, with 10_dog before 2_cat and after it"),
        (["Zebra", "ant"], 2, "the folders' names have two orders, with Zebra before ant and after it"),
        (["0/1", "0/2", "1/3"], 9, "folders are named by number at two depths"),
    ],
)
def test_where_nothing_decides_there_are_no_labels_and_a_reason(names: list[str], classes: int, said: str) -> None:
    tree = tree_of(names)
    found = label_tree(tree, classes)
    assert found.labels is None
    assert found.paths == tree.pictures
    assert found.notes == (f"no labels: {said}; give images.classes, a file of the folders' names in class order",)


def test_padded_numbers_in_names_have_one_order() -> None:
    names = [f"{index:03}.bird" for index in range(1, 201)]
    assert by_folder(label_tree(tree_of(names), 200)) == {name: index for index, name in enumerate(names)}


@pytest.mark.parametrize(
    "splits",
    [["train", "val"], ["Train", "Test"], ["training", "validation"], ["train2017", "val2017"], ["val"], ["test_set"],
     ["train", "val", "more"], ["train/n01440764", "val/n01440764"]],
)  # fmt: skip
@pytest.mark.parametrize("classes", [2, 3, 1000])
def test_splits_are_no_classes(splits: list[str], classes: int) -> None:
    with pytest.raises(InputError, match=r"^evaluate\.path: /photos holds .*, which are no classes; give /photos/"):
        label_tree(tree_of(splits), classes, where="evaluate")


def test_one_class_may_be_called_train() -> None:
    assert by_folder(label_tree(tree_of(["boat", "car", "train"]), 3)) == {"boat": 0, "car": 1, "train": 2}


def test_strays_beside_class_folders_are_left_out_and_named() -> None:
    found = label_tree(tree_of(["0", "1"], flat=1, each=9), 1000)
    assert len(found.paths) == 18
    assert found.notes[1] == "left out of /photos: 1 pictures beside the class folders: 0.jpg"
    many = label_tree(tree_of(["0", "1"], flat=18, each=9), 1000)
    assert (many.labels, len(many.paths)) == (None, 36)
    assert many.notes == ("no labels: 18 of 36 pictures lie beside the class folders",)
    plain = label_tree(tree_of([], flat=3), 1000)
    assert (plain.labels, plain.notes) == (None, ())


def test_nested_folders_count_where_their_names_tell() -> None:
    wrapped = label_tree(tree_of(["all/n01440764", "all/n02123045"]), 1000)
    assert by_folder(wrapped) == {"all/n01440764": 0, "all/n02123045": 281}
    assert wrapped.notes[0].endswith("imagenet-1k (the innermost folders)")
    parts = label_tree(tree_of(["0/n02123045", "1/n01440764"]), 1000)  # parts of an archive, not classes
    assert by_folder(parts) == {"0/n02123045": 281, "1/n01440764": 0}
    outer = label_tree(tree_of(["ant/red", "dog/husky", "dog/pug"]), 2)
    assert by_folder(outer) == {"ant/red": 0, "dog/husky": 1, "dog/pug": 1}
    assert outer.notes == ("labels: 2 folders in order of their names, ant = 0 to dog = 1 (the outermost folders)",)
    inner = label_tree(tree_of(["pets/cat", "wild/ant", "wild/yak"]), 3)
    assert by_folder(inner) == {"wild/ant": 0, "pets/cat": 1, "wild/yak": 2}


def classes_file(tmp_path: Path, content: object, name: str = "classes.txt") -> str:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "dog\ncat\n10\n"),
        ("a.txt", "\ufeffdog\r\ncat\r\n10"),
        ("a.json", ["dog", "cat", "10"]),
        ("a.json", {"cat": 1, "dog": 0, "10": 2}),
        ("a.json", {"0": "dog", "1": "cat", "2": "10"}),
    ],
)
def test_a_class_file_decides_everything(tmp_path: Path, name: str, content: object) -> None:
    file = classes_file(tmp_path, content, name)
    found = label_tree(tree_of(["10", "dog"], flat=9), 3, file)
    assert by_folder(found) == {"10": 2, "dog": 0}
    assert found.notes[0] == f"labels: 2 folders placed by {file}"
    assert by_folder(label_tree(tree_of(["x/10", "y/dog"]), 3, file)) == {"x/10": 2, "y/dog": 0}


def test_a_class_file_may_name_splits_and_a_part_of_the_classes(tmp_path: Path) -> None:
    file = classes_file(tmp_path, {"train": 466, "test": 3}, "a.json")
    assert by_folder(label_tree(tree_of(["train", "test"]), 1000, file)) == {"train": 466, "test": 3}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "dog\n", "has 1 names, and the model 2 classes; a JSON mapping from names to indices may have fewer"),
        ("a.txt", "", "has 0 names, and the model 2 classes"),
        ("a.txt", "dog\ndog\n", "dog stands twice"),
        ("a.txt", "cat\nfox\n", "1 of 2 folders are not placed by .*: dog; add their names, or take the folders away"),
        ("a.json", "[", "is not valid JSON"),
        ("a.json", "3", "is no JSON list of names and no mapping"),
        ("a.json", "null", "is no JSON list of names and no mapping"),
        ("a.json", {}, "names no class"),
        ("a.json", {"dog": 2, "cat": 0}, "dog is 2; indices are integers from 0 to 1"),
        ("a.json", {"dog": -1, "cat": 0}, "dog is -1; indices are integers from 0 to 1"),
        ("a.json", {"dog": True, "cat": 0}, "dog is True; indices"),
        ("a.json", {"dog": 1.0, "cat": 0}, r"dog is 1\.0; indices"),
        ("a.json", {"dog": None}, "dog is None; indices"),
        ("a.json", {"0": "dog", "1": "dog"}, "two indices have the same name"),
        ("a.json", [1, 2], "entry 0 is no name"),
        ("a.json", [["dog"], "cat"], "entry 0 is no name"),
    ],
)
def test_a_class_file_that_does_not_fit_is_refused(tmp_path: Path, name: str, content: object, said: str) -> None:
    file = classes_file(tmp_path, content, name)
    with pytest.raises(InputError, match=said) as caught:
        label_tree(tree_of(["cat", "dog"]), 2, file)
    assert "\n" not in str(caught.value)


def test_a_class_file_without_folders_or_without_itself_is_refused(tmp_path: Path) -> None:
    file = classes_file(tmp_path, "dog\ncat\n")
    with pytest.raises(InputError, match=r"^images\.classes: /photos has no class folders with pictures"):
        label_tree(tree_of([], flat=3), 2, file)
    for path, said in ((tmp_path / "none.txt", "no such file"), (tmp_path, "it is a folder")):
        with pytest.raises(InputError, match=said):
            label_tree(tree_of(["cat", "dog"]), 2, str(path))
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        label_tree(tree_of(["cat", "dog"]), 2, str(tmp_path / "bytes.txt"))


NAMES = st.lists(
    st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=8), min_size=1, max_size=6, unique=True
)


@settings(max_examples=300, deadline=None)
@given(names=NAMES | st.lists(st.from_regex(r"[0-9²]{1,4}|n[0-9]{8}", fullmatch=True), min_size=1, unique=True),
       classes=st.sampled_from([1, 2, 3, 10, 1000]))  # fmt: skip
def test_any_names_give_fitting_indices_or_a_reason(names: list[str], classes: int) -> None:
    found = place(names, classes)
    assert found.said
    if found.indices is not None:
        assert set(found.indices) == set(names)
        assert len(set(found.indices.values())) == len(names)
        assert all(0 <= index < classes for index in found.indices.values())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(text=JSON.map(json.dumps) | st.text(max_size=40), suffix=st.sampled_from(["json", "txt"]))
def test_any_class_file_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str, suffix: str
) -> None:
    file = tmp_path_factory.getbasetemp() / f"fuzzed.{suffix}"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    said, found = "", {}
    try:
        found = read_classes(str(file), 3)
    except InputError as error:
        said = str(error)
    assert bool(said) is not bool(found)
    assert not said or said.isprintable()
    assert set(found.values()) <= {0, 1, 2}


def test_the_thousand_are_read_without_timm_and_are_timms() -> None:
    from timm.data import ImageNetInfo

    names = ImageNetInfo("imagenet-1k").label_names()
    assert place(names[::-1], 1000).indices == {name: index for index, name in enumerate(names)}
    code = "import sys; from vitrim.calibration.images.labels import place;"
    code += "print(place(['n01440764', 'n15075141'], 1000).indices, 'torch' in sys.modules, 'timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'n01440764': 0, 'n15075141': 999} False False"
