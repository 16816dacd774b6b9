"""The table: a row per bundle, its numbers in their columns, and every reason once."""

from __future__ import annotations

from typing import Any

import numpy as np
from gpu_day.plan import Step, Wanted, plan
from gpu_day.results import Engines, Graphs, Held, InTorch
from gpu_day.table import HEADER, fastest_torch, raw, table

from vitrim.exporter.runtime.bench.report import report
from vitrim.exporter.runtime.bench.stats import summarize
from vitrim.exporter.runtime.machine.energy import Energy, GraphEnergy
from vitrim.exporter.runtime.rungs import compare

STEPS = plan(Wanted(("m",), ("evit",), ("fp16",), (8,), ("trt-rtx",)))


def bench(scale: float, energy: Energy | None = None) -> dict[str, Any]:
    """Dense takes 4, pruned 2, floor 1.6 milliseconds times a scale."""
    times = {"dense": 4.0, "pruned": 2.0, "floor": 1.6}
    samples = {kind: np.full(20, scale * value) for kind, value in times.items()}
    found = report(samples, 8, {}).to_json()
    return found | ({} if energy is None else {"energy": energy.to_json()})


def joules(median: float) -> GraphEnergy:
    return GraphEnergy(median, (median, median), True, median, 100.0)


LOGITS = {"logits": np.arange(12, dtype=np.float32).reshape(4, 3)}
ENERGY = Energy({"dense": joules(0.02), "pruned": joules(0.0123)}, idle_watts=50.0)
RESULTS: dict[str, Any] = {
    "export": Graphs({"pruned": "a"}, 2.9876, 1.0).to_json(),
    "build": Engines({"pruned": "b"}, {"pruned": 50_400_000}, 138, 12, "all run in fp16", "1.7.1").to_json(),
    "parity": Held(compare("x", LOGITS, LOGITS, atol=1e-4, tie=1e-4), 1.234).to_json(),
    "energy": bench(1, ENERGY),
    "torch": InTorch(
        {"plain": summarize(np.full(9, 6.0)), "cuda_graph": summarize(np.full(9, 3.0))},
        Energy(None, "nvidia-ml-py is not installed"),
        "2.9",
    ).to_json(),
}


def look(step: Step) -> Any:
    return bench(1 if step.variant == "cuda_graph" else 1.5) if step.kind == "time" else RESULTS[step.kind]


def rows(steps: list[Step], look: Any, reason: Any) -> list[dict[str, str]]:
    lines = table(steps, look, reason)
    assert len({line.count("|") for line in lines}) == 1
    return [dict(zip(HEADER, (cell.strip() for cell in line.split("|")[1:-1]), strict=True)) for line in lines[2:]]


def test_every_number_stands_in_its_column() -> None:
    dense, eager, compiled, evit = rows(STEPS, look, lambda step: None)
    assert (eager["runtime"], compiled["runtime"]) == ("PyTorch 2.9, eager", "PyTorch 2.9, compiled")
    assert eager["ms, dense / pruned / floor, plain"] == "6.000"
    assert eager["ms, dense / pruned / floor, CUDA graph"] == "3.000"
    assert eager["mJ per image, dense / pruned / floor"] == "not measured: nvidia-ml-py is not installed"
    assert evit == {
        "model": "m",
        "batch": "8",
        "precision": "fp16",
        "runtime": "TensorRT for RTX 1.7.1",
        "method": "evit",
        "GMACs": "2.988",
        "kernels (fused attentions)": "138 (12)",
        "engine MB": "50.4",
        "load s": "1.23",
        "same top class": "100.0% of 4",
        "error": "0",
        "ms, dense / pruned / floor, CUDA graph": "4.000 / 2.000 / 1.600",
        "speed-up (95 %), CUDA graph": "2.000 (2.000 to 2.000)",
        "overhead, CUDA graph": "1.250",
        "over PyTorch, CUDA graph": "1.50",
        "ms, dense / pruned / floor, plain": "6.000 / 3.000 / 2.400",
        "speed-up (95 %), plain": "2.000 (2.000 to 2.000)",
        "overhead, plain": "1.250",
        "mJ per image, dense / pruned / floor": "20 / 12.3",
        "what is missing, and why": "",
    }
    assert (dense["method"], dense["kernels (fused attentions)"]) == ("dense", "138 (12)")


def test_a_speed_up_that_is_not_claimed_has_a_star() -> None:
    def few(step: Step) -> Any:
        samples = {"dense": np.full(4, 4.0), "pruned": np.full(4, 2.0), "floor": np.full(4, 1.0)}
        return report(samples, 8, {}).to_json() if step.kind == "time" else RESULTS[step.kind]

    dense, *_, evit = rows(STEPS, few, lambda step: None)
    assert evit["speed-up (95 %), plain"] == "2.000 (2.000 to 2.000) *"
    assert dense["speed-up (95 %), plain"] == "2.000 (2.000 to 2.000)"


def test_failed_parity_is_said_where_the_answers_are() -> None:
    wrong = compare("x", LOGITS, {"logits": -LOGITS["logits"]}, atol=1e-4, tie=1e-4)
    found = RESULTS | {"parity": Held(wrong, 1.0).to_json()}
    evit = rows(STEPS, lambda step: None if step.kind == "time" else found[step.kind], lambda step: None)[-1]
    assert evit["same top class"].startswith("FAILED: ")
    assert evit["same top class"].endswith(" of 4")


def test_a_reason_stands_once_with_what_it_keeps_from_being_done() -> None:
    def reason(step: Step) -> str | None:
        first = {"export": None, "build": "it was refused | by TensorRT"}
        return first.get(step.kind, f"build-{step.case} is needed: it was refused | by TensorRT")

    evit = rows(STEPS, lambda step: RESULTS["export"] if step.kind == "export" else None, reason)[-1]
    kinds = "build, parity, time (CUDA graph), time (plain), energy"
    assert evit["what is missing, and why"] == f"{kinds}: it was refused / by TensorRT"
    assert evit["GMACs"] == "2.988"


def test_the_fastest_of_pytorch_is_taken() -> None:
    assert fastest_torch(STEPS, look) == {("m", 8): 3.0}
    assert fastest_torch(STEPS, lambda step: None) == {}
    without = rows(STEPS, lambda step: None if step.kind == "torch" else look(step), lambda step: None)
    assert without[-1]["over PyTorch, CUDA graph"] == ""


def test_raw_data_has_every_step() -> None:
    found = raw(STEPS, lambda step: RESULTS.get(step.kind), lambda step: "no GPU" if step.kind == "time" else None)
    assert [Step.from_json(one["step"], "step") for one in found] == STEPS
    assert {one["reason"] for one in found if one["step"]["kind"] == "time"} == {"no GPU"}
    assert found[0]["result"] == RESULTS["export"]
