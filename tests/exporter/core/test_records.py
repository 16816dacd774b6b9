"""Records: what goes to JSON comes back equal, and what does not fit is refused in one line that names its key."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from python38 import python_38

from vitrim.exporter.core import errors, files, inputs, records
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.records import Record, finite, optional

Colour = Literal["red", "green"]


@dataclass(frozen=True)
class Point(Record):
    x: float
    y: float = 0.0


@dataclass(frozen=True)
class Missing(Record):
    reason: str


@dataclass(frozen=True)
class Drawing(Record):
    DERIVED = ("count",)

    name: str
    points: tuple[Point, ...]
    size: tuple[int, float]
    colour: Colour | None
    layers: dict[str, Point | Missing]
    notes: dict[str, Any]
    closed: bool = False
    kind: Literal["ink", "chalk"] = "ink"
    origin: Point | None = optional()
    comment: str | None = optional()

    @property
    def count(self) -> int:
        return len(self.points)

    def __post_init__(self) -> None:
        if self.name == "nothing":
            raise ValueError("is a drawing of nothing")


floats = st.floats(allow_nan=False, allow_infinity=False)
points = st.builds(Point, floats, floats)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | floats | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
drawings = st.builds(
    Drawing,
    name=st.text().filter(lambda text: text != "nothing"),
    points=st.lists(points, max_size=4).map(tuple),
    size=st.tuples(st.integers(), floats),
    colour=st.sampled_from(["red", "green", None]),
    layers=st.dictionaries(st.text(), points | st.builds(Missing, st.text()), max_size=3),
    notes=st.dictionaries(st.text(), plain, max_size=3),
    closed=st.booleans(),
    kind=st.sampled_from(["ink", "chalk"]),
    origin=st.none() | points,
    comment=st.none() | st.text(),
)


@given(drawings)
def test_what_goes_to_json_comes_back_equal(drawing: Drawing) -> None:
    text = json.dumps(drawing.to_json())
    assert Drawing.from_json(json.loads(text), "d.json") == drawing
    assert json.loads(text)["count"] == len(drawing.points)
    assert ("origin" in json.loads(text)) is (drawing.origin is not None)


@given(drawings, st.data())
def test_a_key_that_is_missing_unknown_or_of_another_type_is_named_in_one_line(drawing: Drawing, data: Any) -> None:
    plain = drawing.to_json()
    needed = data.draw(st.sampled_from(["name", "points", "size", "colour", "layers", "notes"]))
    wrong: dict[str, Any] = {"name": 3, "points": {}, "size": [1], "colour": "blue", "layers": [], "notes": None}
    for changed, said in (
        ({key: value for key, value in plain.items() if key != needed}, f"d.json: {needed} is missing; it must be "),
        (plain | {"colours": 1}, "d.json: colours is unknown (known are name, points, "),
        (plain | {needed: wrong[needed]}, f"d.json: {needed} "),
    ):
        with pytest.raises(InputError) as caught:
            Drawing.from_json(changed, "d.json")
        assert str(caught.value).startswith(said)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_what_no_json_holds_is_written_as_null_and_refused_when_it_is_read(number: float, tmp_path: Path) -> None:
    replace(GOOD, points=(Point(number, 2.0),), notes={"a": [number, 1]}).write(tmp_path / "d.json")
    written = json.loads((tmp_path / "d.json").read_text(), parse_constant=pytest.fail)
    assert (written["points"][0]["x"], written["notes"]) == (None, {"a": [None, 1]})
    assert finite({"a": (number, 1.5), "b": "NaN"}) == {"a": [None, 1.5], "b": "NaN"}
    with pytest.raises(InputError, match=r"points\[0\]\.x is -?(NaN|Infinity), but must be a number"):
        Drawing.from_json(GOOD.to_json() | {"points": [{"x": number}]}, "d.json")


GOOD = Drawing("a", (Point(1, 2),), (1, 2.0), None, {"top": Missing("no ink")}, {})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"points": [{"x": 1}, {"x": "1"}]}, 'points[1].x is "1", but must be a number'),
        ({"points": [{"x": True}]}, "points[0].x is true, but must be a number"),
        ({"points": [{"x": 10**400}]}, "which is too large for a number"),
        ({"points": [{"y": 1}]}, "points[0].x is missing; it must be a number"),
        ({"points": [[1, 2]]}, "points[0] is a list, but must be an object"),
        ({"points": "none"}, 'points is "none", but must be a list'),
        ({"size": [1, 2, 3]}, "size has 3 entries, but must have 2"),
        ({"size": [1.5, 2]}, "size[0] is 1.5, but must be a whole number"),
        ({"size": [True, 2]}, "size[0] is true, but must be a whole number"),
        ({"colour": "blue"}, 'colour is "blue", which this vitrim does not know (it knows red, green)'),
        ({"colour": 3}, "colour is 3, but must be one of red, green or null"),
        ({"kind": "oil"}, 'kind is "oil", which this vitrim does not know (it knows ink, chalk)'),
        ({"layers": {"top": {"why": 1}}}, "layers.top.why is unknown (known are x, y)"),
        ({"layers": {"top": {"reason": 1}}}, "layers.top.reason is 1, but must be text"),
        ({"closed": 0}, "closed is 0, but must be true or false"),
        ({"origin": {"x": 1, "z": 2}}, "origin.z is unknown (known are x, y)"),
        ({"name": "x" * 500 + "\n", "closed": "y" * 500 + "\n"}, f'closed is "{"y" * 56}..., but must be true'),
        ({"name": "nothing"}, "d.json is a drawing of nothing"),
    ],
)
def test_messages_say_what_was_found_and_what_is_allowed(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        Drawing.from_json(GOOD.to_json() | change, "d.json")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_record_itself_must_be_an_object() -> None:
    with pytest.raises(InputError, match=r"^d\.json is a list, but must be an object$"):
        Drawing.from_json([], "d.json")
    with pytest.raises(InputError, match=r"^d\.json: notes has the key 3, but keys must be text$"):
        Notes.from_json({"notes": {3: "x"}}, "d.json")


@dataclass(frozen=True)
class Notes(Record):
    notes: dict[str, str]


def test_whole_numbers_become_floats_where_floats_are_wanted() -> None:
    point = Point.from_json({"x": 1}, "p.json")
    assert (point, type(point.x)) == (Point(1.0, 0.0), float)


def test_what_is_derived_is_written_but_not_believed() -> None:
    data = GOOD.to_json()
    assert next(iter(data)) == "count"
    assert Drawing.from_json(data | {"count": 99}, "d.json").count == 1


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    GOOD.write(path)
    assert Drawing.read(path, "drawing") == GOOD
    replace(GOOD, comment="later").write(path)
    assert Drawing.read(path, "drawing").comment == "later"
    path.write_text("{")
    with pytest.raises(InputError, match=r"d\.json is not valid JSON at line 1, .*; `vitrim export` writes a drawing"):
        Drawing.read(path, "drawing")


@dataclass(frozen=True)
class Strange(Record):
    values: set[int]


def test_an_annotation_that_cannot_be_read_is_a_fault_of_the_class() -> None:
    with pytest.raises(TypeError, match=r"Strange\.values: set\[int\] is no annotation that records can read"):
        Strange.from_json({"values": []}, "s.json")


def test_python_38_reads_and_writes_the_same(tmp_path: Path) -> None:
    """By the modules as they are, in a package of their own, without numpy."""
    package = tmp_path / "core"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for module in (errors, files, inputs, records):
        (package / f"{module.__name__.rpartition('.')[2]}.py").write_text(Path(str(module.__file__)).read_text())
    code = """
from __future__ import annotations
import builtins, functools, json, sys
functools.cache = functools.lru_cache(maxsize=None)  # as run_on_device.py does, and zip
plain = zip
builtins.zip = lambda *rows, strict=False: plain(*rows)
from dataclasses import dataclass
from typing import Any, Literal
from core.errors import InputError
from core.records import Record, optional
Colour = Literal["red", "green"]
"""
    source = Path(__file__).read_text()
    start, end = source.index("@dataclass(frozen=True)\nclass Point"), source.index("floats = st.floats")
    code += source[start:end]
    code += """
drawing = Drawing.from_json(json.load(sys.stdin), "d.json")
try:
    Drawing.from_json({**drawing.to_json(), "colour": 3}, "d.json")
except InputError as error:
    print(json.dumps([drawing.to_json(), str(error)]))
"""
    rich = replace(GOOD, layers={"a": Point(1.0), "b": Missing("x")}, colour="red", notes={"n": [1, None]})
    done = subprocess.run(
        [python_38(numpy=False), "-c", code],
        input=json.dumps(rich.to_json()),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    there, said = json.loads(done.stdout)
    assert there == json.loads(json.dumps(rich.to_json()))
    assert said == "d.json: colour is 3, but must be one of red, green or null"


def test_every_record_of_the_package_can_be_read() -> None:
    """Its annotations are of those that records know, with names that its module has when it runs."""
    for name in ("core", "runtime", "graph.precision"):
        package = importlib.import_module(f"vitrim.exporter.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    waiting, seen = list(Record.__subclasses__()), []
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        if cls.__module__.startswith("vitrim.") and cls.__name__ != "Manifest":  # which keeps what it does not know
            with pytest.raises(InputError, match="is a list, but must be an object"):
                cls.from_json([], "x")
            with pytest.raises(InputError, match="nothing_of_it is unknown"):
                cls.from_json({"nothing_of_it": 1}, "x")
            seen.append(cls.__name__)
    assert {"Parity", "Bench", "Fidelity", "PrecisionReport", "EngineIdentity", "Comparison", "Energy"} <= set(seen)
