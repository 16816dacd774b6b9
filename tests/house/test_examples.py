"""Notebooks run from top to bottom and show what they say, and the server answers."""

from __future__ import annotations

import io
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from evaluated_bundles import BATCH, PREPROCESS, make_bundle
from nbclient import NotebookClient
from PIL import Image

from vitrim.calibration.images.transform import make_transform
from vitrim.exporter.core.answers import log_softmax
from vitrim.exporter.core.preprocess import Preprocess
from vitrim.exporter.runtime.runners import OrtRunner

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def texts(notebook: Any) -> str:
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


def pictures(notebook: Any) -> int:
    found = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in data for data in found)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_notebook_prunes_evaluates_draws_and_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(EXAMPLES / "prune_evaluate_export.ipynb", 4)
    shown = texts(notebook)
    drawing = next(cell for cell in notebook.cells if "make_images(100" in cell.source)
    drawing.source = drawing.source.replace("make_images(100", "make_images(40")  # whose answers take the time
    curves = next(cell for cell in notebook.cells if "RATIOS = [0.8, 0.6, 0.45]" in cell.source)
    curves.source = curves.source.replace("[0.8, 0.6, 0.45]", "[0.45]")
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=500, kernel_name="python3", resources=resources).execute()
    found = texts(notebook)
    assert pictures(notebook) == 2
    assert "parity passed: True" in found
    assert "fails" not in found
    agreement = float(re.findall(r"agreement with the dense model: ([\d.]+)%", found)[0])
    assert agreement >= 95
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"model.onnx", "run_on_device.py", "parity.json"}
    decided = re.findall(r"tokens after each block: .*|GMACs: .*", found)
    assert decided == re.findall(r"tokens after each block: .*|GMACs: .*", shown)


def test_what_is_shown_names_no_folder_of_the_machine_and_no_error() -> None:
    for path in EXAMPLES.glob("*.ipynb"):
        notebook = nbformat.read(path, 4)
        nbformat.validate(notebook)
        assert pictures(notebook)
        assert not re.search(r"/(root|home|tmp|work|Users)/", path.read_text("utf-8"))
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from serve import Classifier, make_server

    found = make_server(Classifier(make_bundle(tmp_path / "out"), best=3), "127.0.0.1", 0)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()


def asked(address: str, body: bytes) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data=body), timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_server_answers_as_the_graph_does_and_refuses_what_is_no_photo(tmp_path: Path, server: str) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    file = io.BytesIO()
    photo.save(file, "PNG")
    status, found = asked(server, file.getvalue())
    images = make_transform(Preprocess.from_dict(PREPROCESS))(photo)[None].repeat(BATCH, 0)
    shares = np.exp(log_softmax(OrtRunner(tmp_path / "out" / "model.onnx")(images)["logits"]))[0]
    assert status == 200
    assert [one["index"] for one in found["classes"]] == list(np.argsort(-shares)[:3])
    assert [one["probability"] for one in found["classes"]] == pytest.approx(np.sort(shares)[:1:-1], abs=1e-6)
    status, found = asked(server, b"no photo")
    assert (status, found["error"][:25]) == (400, "the photo is not an image")
    assert asked(server, b"")[0] == 413
