"""The page that lies in a bundle: its numbers are the reports', and what is not there is not spoken of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import small_recipe
from kernel_lists import kernel_list

from vitrim.calibration.tokens.budgets import make_budget
from vitrim.exporter.core.fidelity import Fidelity, PrecisionChange
from vitrim.exporter.graph.precision.report import PrecisionReport
from vitrim.exporter.pruning.load import preprocessing
from vitrim.exporter.pruning.plan import StagePlan
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.runtime.bench.report import report
from vitrim.exporter.runtime.parity import Errors, Parity, Rung, StageAgreement
from vitrim.exporter.runtime.tensorrt.identity import EngineIdentity
from vitrim.exporter.runtime.tensorrt.inventory import inventory
from vitrim.exporter.runtime.tensorrt.summary import Wanted, summarize
from vitrim.recipes.pipeline.exported import Reports
from vitrim.recipes.pipeline.readme import bundle_readme, precision_words, size_rows
from vitrim.recipes.schema.load import recipe_from

ANSWERS = Fidelity(images=40, agreement=0.75, kl=0.1)
RUNG = Rung("onnx: a", 4, equal=Errors(4, 3e-5, 1e-6, 1.0, 1.0), passed=True, smallest_atol=3e-5)
KEPT = PrecisionReport("int8", "int8", {}, 1.375, (1.3, 1.4))


def reports(**change: Any) -> Reports:
    times = {"dense": 5 + np.arange(60) / 1e3, "pruned": 4 + np.arange(60) / 1e3}
    bench = report(times, 1, {"cpu": "x", "runtime": "onnxruntime-cpu"})
    return replace(Reports(Parity(1e-4, 1e-5, (RUNG,)), ANSWERS, bench, None), **change)


def page(vit: Any, found: Reports, no_engine: str | None = "no GPU", tokens: bool = True, **sections: Any) -> str:
    budget = make_budget(describe(vit), "evit", {}, [StagePlan(1, 8), StagePlan(2, 3)]) if tokens else None
    recipe = recipe_from(small_recipe(**sections))
    return bundle_readme("small", recipe, preprocessing(vit), budget, None, found, no_engine)


def test_it_says_what_was_found(vit: Any) -> None:
    found = reports()
    budget = make_budget(describe(vit), "evit", {}, [StagePlan(1, 8), StagePlan(2, 3)])
    text = page(vit, found)
    low, high = ANSWERS.agreement_interval
    for line in (
        "# small, pruned by vitrim",
        "Method evit; tokens 17 to 9 at block 1, 9 to 4 at block 2. "
        f"{budget.total_gmacs:.3f} GMACs instead of {budget.gmacs['dense']:.3f}.",
        "- input `image` [1, 3, 64, 64] float32 (NCHW), preprocessed as `manifest.json` says;",
        "  outputs `logits`",
        "- `proof.onnx`: the graph that was proven, the same one that also gives the surviving token ids "
        "`kept_<block>`",
        f"- agreement with the dense model on 40 images: 75.0% (95 % interval {low:.1%}",
        f"  to {high:.1%})",
        "- parity with PyTorch: passed, largest error 3e-05 where decisions agree",
        f"- onnxruntime-cpu, batch 1: {found.bench.verdict}",
        "- engine: not built (no GPU)",
    ):
        assert line in text.splitlines(), line


def test_accuracy_is_told_where_there_are_labels(vit: Any) -> None:
    assert "top-1" not in page(vit, reports())
    right = replace(ANSWERS, accuracy_dense=0.9, accuracy_pruned=0.85, lost=3, won=1)
    assert ", top-1 85.0% (dense 90.0%)\n" in page(vit, reports(fidelity=right))


def test_what_was_seen_before_is_owned_up_to(vit: Any) -> None:
    seen = replace(ANSWERS, on_calibration_images=True)
    assert "on 40 images (the calibration images themselves): 75.0%" in page(vit, reports(fidelity=seen))


def test_outputs_are_those_that_the_graph_has(vit: Any) -> None:
    merging = replace(RUNG, stages=(StageAgreement("merged_1", 1.0, 1.0, 0, 0, None),))
    text = page(vit, reports(parity=Parity(1e-4, 1e-5, (merging,))), export={"top_k": 3, "input": "uint8", "batch": 2})
    assert "what merged into what, `merged_<block>` (65536 * source id + target id, or -1)" in text
    assert ", and of the 3 best classes, best first, `probabilities` and `classes`" in text
    assert "[2, 64, 64, 3] uint8 (NHWC): RGB pixels" in text
    own = page(vit, reports(), export={"decisions": True})
    assert "  outputs `logits`, and the surviving token ids `kept_<block>`\n" in own
    assert "proof.onnx" not in own
    plain = page(vit, reports(), tokens=False)
    assert "proof.onnx" not in plain
    assert "  outputs `logits`\n" in plain
    assert "Method" not in plain


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unit": 1e-3}, "passed, at an atol of 3e-05 in proportion to the logits' spread, where decisions agree"),
        ({"passed": False, "smallest_atol": None}, "FAILED, which no tolerance would pass"),
    ],
)
def test_how_far_off_the_numbers_are_is_told_in_what_they_are_held_by(
    vit: Any, change: dict[str, Any], words: str
) -> None:
    assert f"- parity with PyTorch: {words}\n" in page(
        vit, reports(parity=Parity(1e-4, 1e-5, (replace(RUNG, **change),)))
    )


def test_a_failed_ladder_and_a_built_engine_are_named(vit: Any) -> None:
    failed = replace(RUNG, passed=False, first_offender="logits", reason="off")
    text = page(vit, reports(parity=Parity(1e-4, 1e-5, (failed,))), no_engine=None)
    assert "- parity with PyTorch: FAILED, " in text
    assert "- engine: model.engine\n" in text


@pytest.mark.parametrize(
    ("precision", "changed", "words"),
    [
        (PrecisionReport("fp16", "fp32", {}, 0.9, None, "fp16 is slower"), None, "fp16 is slower"),
        (
            KEPT,
            PrecisionChange(0.975, 0.1, {"kept_1": 0.02, "kept_2": 0.125}),
            "int8: the top class of float32 on 97.5% of the images, at most 12.5% of a stage's tokens changed; "
            "1.38 times as fast as float32 here",
        ),
        (
            PrecisionReport("bf16", "bf16", {}, None, None, "timed on the device"),
            PrecisionChange(1.0, 0.0, {}),
            "bf16: the top class of float32 on 100.0% of the images; timed on the device",
        ),
    ],
)
def test_a_precision_is_one_line(vit: Any, precision: PrecisionReport, changed: Any, words: str) -> None:
    answers = replace(ANSWERS, precision=changed)
    assert precision_words(precision, answers) == words
    assert f"\n- {words}\n" in page(vit, reports(precision=precision, fidelity=answers))


def test_a_bundle_s_page_has_the_numbers_of_its_files(made: tuple[Path, Any]) -> None:
    out = made[0]
    text = (out / "README.md").read_text()
    answers, bench = (json.loads((out / f"{name}.json").read_text()) for name in ("fidelity", "bench"))
    assert f"on {answers['images']} images: {answers['agreement']:.1%}" in text
    assert bench["verdict"] in text
    cost = json.loads((out / "budget.json").read_text())["gmacs"]
    assert f"{cost['pruned'] + cost['scoring']:.3f} GMACs instead of {cost['dense']:.3f}" in text


@pytest.mark.parametrize("target", ["openvino", "openvino-npu"])
def test_a_bundle_for_openvino_speaks_of_no_engine_to_build(vit: Any, target: str) -> None:
    text = page(vit, reports(), no_engine=f"none belongs to {target}", export={"target": target})
    assert f"- engine: none belongs to {target}: OpenVINO compiles the graph when it loads it\n" in text
    assert "TensorRT" not in text
    assert "build" not in text.replace("vitrim bench", "")
    assert "(`pip install 'vitrim[openvino]'`)" in text
    assert "numpy and openvino are installed (`pip install openvino numpy`):\n" in text
    assert "    python3 out/run_on_device.py bench --energy -o bench.json\n" in text


def test_an_engine_that_no_gpu_has_run_is_named_with_what_is_not_known(vit: Any) -> None:
    engine = EngineIdentity("a", "b", tensorrt="1.7.1", family="rtx", capabilities=("8.6",), precision="fp16")
    parity = Parity(1e-4, 1e-5, (RUNG,), engine=engine, engine_not_checked="no GPU here")
    text = page(vit, reports(parity=parity), no_engine=None, export={"target": "trt-rtx"})
    assert (
        "- engine: model.engine, made by TensorRT for RTX 1.7.1 for GPUs of compute capability 8.6; built, but not run "
        "here: its numbers and times are unproven\n"
    ) in text
    assert "pip install 'vitrim[device,rtx]'" in text
    assert "this machine's TensorRT for RTX and prove it" in text
    assert "numpy and TensorRT for RTX are installed:\n" in text
    assert "numpy and TensorRT are installed, as on a Jetson:\n" in page(vit, reports(), export={"target": "trt-11"})


def test_an_engine_s_kernels_are_summed_up(vit: Any) -> None:
    layers, wiring = kernel_list("zero_tprune", "fp16")
    summary = summarize(layers, Wanted("fp16", wiring=wiring))
    engine = EngineIdentity("a", "b", layers=summary, kernels=inventory(layers, wiring))
    text = page(vit, reports(engine=engine), no_engine=None)
    for line in (
        "- kernels: 122, 47 of them in stages, 12 that only pad or slice; 3 of 6 attentions are one kernel",
        "  - block 1: its probabilities are read by node_matmul_2 as well, so they must be written",
    ):
        assert line in text.splitlines(), line
    assert "kernels" not in page(vit, reports(engine=engine.brief()), no_engine=None)


def test_every_image_size_has_a_row(vit: Any) -> None:
    budget = make_budget(describe(vit), "evit", {}, [StagePlan(1, 8), StagePlan(2, 3)])
    budget = budget.model_copy(update={"gmacs": {"dense": 2.0, "pruned": 1.25, "scoring": 0.0}})
    found = reports(budget=budget, sizes={"48x80": reports(budget=budget, bench=None), "96x96": reports()})
    assert size_rows({"64x64": found, **found.sizes}) == [
        ("64x64", "17 to 4", "1.250 of 2.000", "75.0%", "passed", "5.03", "4.03", "1.25"),
        ("48x80", "17 to 4", "1.250 of 2.000", "75.0%", "passed", "-", "-", "-"),
        ("96x96", "-", "-", "75.0%", "passed", "5.03", "4.03", "1.25"),
    ]
    text = page(vit, found)
    assert "All of the above is for images of 64x64." in text
    assert "such as\n`model.48x80.onnx`, and every command below takes `--size 48x80`." in text
    assert "| size | tokens | GMACs | agreement | parity | dense ms | pruned ms | speed-up |\n| --- |" in text
    assert "| 48x80 | 17 to 4 | 1.250 of 2.000 | 75.0% | passed | - | - | - |" in text
    assert "Further sizes" not in page(vit, reports())
