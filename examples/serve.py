"""Serve a bundle over HTTP with onnxruntime or OpenVINO, without PyTorch: photos in, the best classes out.

    pip install 'vitrim[device]' pillow
    python serve.py out/ --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000

It answers one photo at a time and knows no users: put it behind a server that does, or take Triton (`vitrim triton`).
"""

from __future__ import annotations

import argparse
import io
import json
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from vitrim.calibration.images.photos import decode_photo
from vitrim.calibration.images.transform import make_transform
from vitrim.exporter.core import layout
from vitrim.exporter.core.answers import LOGITS, log_softmax
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.preprocess import Preprocess
from vitrim.exporter.runtime.bundles.verify import verify_bundle
from vitrim.exporter.runtime.choose import runner_for
from vitrim.exporter.runtime.runners import on_images, run_all

LARGEST = 32 << 20  # bytes of a photo's file


class Classifier:
    """A bundle's pruned graph, from a photo's bytes to its best classes."""

    def __init__(self, folder: Path, threads: int | None = None, best: int = 5) -> None:
        manifest = verify_bundle(folder, needs=(layout.MODEL,))
        preprocess = Preprocess.from_dict(manifest.preprocess or {})
        precision = manifest.precision.name
        self.runner, _ = runner_for(folder / layout.MODEL, manifest.resolved_target, threads, precision)
        self.answer, self.transform = on_images(self.runner, preprocess), make_transform(preprocess)
        named = layout.LABELS in manifest.files
        self.labels = json.loads((folder / layout.LABELS).read_text("utf-8")) if named else None
        self.best, self.lock = best, threading.Lock()

    def __call__(self, photo: bytes) -> dict[str, Any]:
        """The best classes of a photo, with their probabilities.

        Raises:
            InputError: the bytes are no photo.
        """
        began = time.perf_counter()
        image = self.transform(decode_photo(io.BytesIO(photo), "the photo"))
        with self.lock:
            logits = run_all(self.answer, image[None], self.runner.batch)[LOGITS.output]
        shares = np.exp(log_softmax(logits.astype(np.float64)))[0]
        best = [self.describe(int(index), float(shares[index])) for index in np.argsort(-shares)[: self.best]]
        return {"classes": best, "milliseconds": (time.perf_counter() - began) * 1e3}

    def describe(self, index: int, probability: float) -> dict[str, Any]:
        """A class; its name is null where the bundle has no names."""
        return {"index": index, "name": self.labels and self.labels[index], "probability": probability}


def make_server(classifier: Classifier, host: str, port: int) -> ThreadingHTTPServer:
    """A server that answers POST with the classes of the photo in its body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = self.headers.get("Content-Length", "")
            if not size.isdecimal() or not 0 < int(size) <= LARGEST:
                most = f"send a photo of at most {LARGEST >> 20} MiB, with its Content-Length"
                return self.reply(413, {"error": most})
            try:
                found = classifier(self.rfile.read(int(size)))
            except InputError as error:
                return self.reply(400, {"error": str(error)})
            return self.reply(200, found)

        def reply(self, status: int, data: dict[str, Any]) -> None:
            body = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return ThreadingHTTPServer((host, port), Handler)


def main(words: Sequence[str] | None = None) -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(words)
    classifier = Classifier(given.bundle, given.threads)
    with make_server(classifier, given.host, given.port) as server:
        print(f"{given.bundle} by {classifier.runner.name} at http://{given.host}:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
