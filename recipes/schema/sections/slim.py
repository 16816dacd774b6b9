"""The section of slimming: heads and neurons taken out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ....exporter.core.bounds import BATCH
from .prune import _PLACES
from .section import Section, file_key


class SlimTargetSection(Section):
    """How narrow the model gets."""

    ways = ("gflops", "flops_ratio", "parameters_ratio")

    gflops: float | None = Field(
        default=None, gt=0, le=1e9, description="Multiply-accumulates in 1e9, as papers count them."
    )
    flops_ratio: float | None = Field(default=None, gt=0, lt=1, description="Share of the dense model's.")
    parameters_ratio: float | None = Field(default=None, gt=0, lt=1, description="Share of the dense model's weights.")


class MasksSection(Section):
    """X-Pruner's class-wise masks, learned on labelled images with frozen weights."""

    epochs: int = Field(default=10, ge=1, le=1000, description="Passes over the images; the paper has 50.")
    lr: float = Field(default=1.0, gt=0, le=1e6, description="Step of SGD with momentum 0.9 on the masks.")
    sparse: float = Field(
        default=0.1, ge=0, le=1e6, description="Weight of the masks' sum of squares (mean over classes)."
    )
    smooth: float = Field(
        default=1e-5, ge=0, le=1e6, description="Weight of their absolute second differences along the units."
    )


class ThresholdsSection(Section):
    """X-Pruner's layer-wise pruning rates, learned under a constraint on the cost."""

    epochs: int = Field(default=10, ge=1, le=1000, description="Passes over the images; the paper has 80.")
    lr: float = Field(default=0.1, gt=0, le=1e6, description="Step of Adam on the logits of the rates.")


class FinetuneSection(Section):
    """Training of the slimmed model on the calibration images, with the dense model as its teacher."""

    epochs: int = Field(default=0, ge=0, le=10000, description="Passes over the images; 0 trains nothing.")
    lr: float = Field(default=1e-4, gt=0, le=1e6, description="AdamW's first step; falls to 0 along a cosine.")
    batch: int = Field(default=32, ge=BATCH[0], le=BATCH[1], description="Images per step.")


class SlimSection(Section):
    """Narrower blocks: fewer heads and MLP neurons, before any token is pruned."""

    ways = ("target", "widths")
    rules = (
        {
            "not": {
                "properties": {"heads": {"const": False}, "neurons": {"const": False}},
                "required": ["heads", "neurons"],
            }
        },
        {"properties": {"classes": _PLACES}},
    )

    method: Literal["taylor", "xpruner"] = Field(
        default="taylor", description="Zero-shot Taylor scores, or X-Pruner's masks learned on labelled images."
    )
    rule: Literal["global", "thresholds"] = Field(
        default="global", description="One threshold for all units, or a learned pruning rate for every layer."
    )
    target: SlimTargetSection | None = Field(default=None, description="How narrow the model gets.")
    widths: str | None = file_key("A widths.json, perhaps edited by hand.")
    heads: bool = Field(default=True, description="Whether heads may go.")
    neurons: bool = Field(default=True, description="Whether MLP neurons may go.")
    multiple: int = Field(
        default=16, ge=8, le=256, multiple_of=8, description="MLPs keep whole multiples of so many neurons."
    )
    classes: list[int] | None = Field(
        default=None, min_length=1, description="Judge units by these classes only; the model will see no others."
    )
    rounds: int = Field(
        default=3,
        ge=1,
        le=64,
        description="Equal parts in which units go; each is judged anew on what the one before left, repaired. "
        "With taylor and the global rule; others take one.",
    )
    repair: bool = Field(
        default=True, description="Fit what stays to what left by least squares on the calibration images."
    )
    masks: MasksSection = Field(default_factory=MasksSection)
    thresholds: ThresholdsSection = Field(default_factory=ThresholdsSection)
    finetune: FinetuneSection = Field(default_factory=FinetuneSection)

    @model_validator(mode="after")
    def _some_units(self) -> SlimSection:
        if not self.heads and not self.neurons:
            raise ValueError("heads and neurons are both false, so nothing may go; allow one of them")
        return self
