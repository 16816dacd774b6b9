"""Sections of what comes out: the graph and its precision, its proof, its times, its engine, and what must hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ....exporter.core.bounds import ATOL, BATCH, CLASSES, MODEL_ARGS, THREADS
from ....exporter.core.errors import InputError
from ....exporter.core.layout import size_name
from ....exporter.core.targets import group_of
from ....exporter.runtime.bench.timing import RUNS, WARMUP
from ....exporter.runtime.tensorrt.options import CAPABILITIES, WORKSPACE_MIB, EngineOptions
from .section import MOST_ARRAY_IMAGES, Section

_Side = Annotated[int, Field(ge=MODEL_ARGS["img_size"][0], le=MODEL_ARGS["img_size"][1])]
_MOST_SIZES = 32


class ExportSection(Section):
    """For which target the graph is made."""

    target: str = Field(
        default="ort-cpu",
        description="Where the graph will run, see `vitrim targets`; cpu: the fastest of those for a CPU, by trying.",
    )
    batch: int = Field(default=1, ge=BATCH[0], le=BATCH[1], description="Fixed batch size of the graph.")
    attention: Literal["auto", "decomposed", "fused"] = Field(
        default="auto",
        description="onnxruntime's fused Attention: only where it measures faster, never, or always.",
    )
    input: Literal["float32", "uint8"] = Field(
        default="float32",
        description="Preprocessed images [batch, channels, height, width], or RGB pixels [batch, height, width, "
        "channels] with the normalization folded into the patch embedding.",
    )
    top_k: int | None = Field(
        default=None,
        ge=1,
        le=CLASSES[1],
        description="Also give the k best classes and their probabilities; null: logits only.",
    )
    tokens: Literal["left", "grid"] | None = Field(
        default=None,
        description="Also give the last hidden tokens, after the final norm: those that are left, or the whole grid, "
        "where every patch has the token that it went into.",
    )
    decisions: bool = Field(
        default=False,
        description="The shipped graph also gives what its stages decided; false: only a proof graph beside it does.",
    )

    sizes: list[_Side | Annotated[list[_Side], Field(min_length=2, max_length=2)]] = Field(
        default=[],
        max_length=_MOST_SIZES,
        description="Further image sizes beside the model's own, [height, width] or a square's side: the bundle gets a "
        "graph of each, pruned by the same rule, and weights that are equal once.",
    )

    @field_validator("sizes")
    @classmethod
    def _each_once(cls, sizes: list[int | list[int]]) -> list[int | list[int]]:
        named = [size_name(size) for size in sizes]
        twice = next((name for index, name in enumerate(named) if name in named[:index]), None)
        if twice is not None:
            raise ValueError(f"{twice} stands twice; take one out")
        return sizes

    @property
    def compares(self) -> bool:
        """See `Target.compares`."""
        return group_of(self.target)[0].compares

    @property
    def token_multiple(self) -> int:
        """See `Target.token_multiple`."""
        return group_of(self.target)[0].token_multiple


class PrecisionSection(Section):
    """What the pruned graph computes in; the dense graph that it is timed against stays in float32."""

    name: Literal["fp32", "fp16", "bf16", "int8", "auto"] = Field(
        default="fp32",
        description="int8: the products with a weight; the rest is fp16 on TensorRT; see around. auto: the "
        "fastest that holds, by trying; so is a target that is a group, unless a precision is named.",
    )
    images: int = Field(
        default=64, ge=1, le=MOST_ARRAY_IMAGES, description="Calibration images that ranges are measured on."
    )
    half_io: bool = Field(default=False, description="Half-precision inputs and outputs instead of float32 ones.")
    headroom: float = Field(
        default=4.0,
        ge=1,
        le=65_504,
        description="fp16, and fp16 around int8: activations above 65504 over this, or all below 6.1e-5 times this, "
        "stay in float32.",
    )
    float32: list[str] = Field(
        default_factory=list, description="Further nodes that stay in float32, as patterns such as node_MatMul_9*."
    )
    calibrator: Literal["minmax", "percentile", "entropy"] = Field(
        default="minmax", description="int8: how an activation's range comes from what it is on the images."
    )
    percentile: float = Field(default=99.999, gt=50, le=100, description="With calibrator: percentile.")
    equalize: bool = Field(default=True, description="int8: even out channels between normalizations and weights.")
    agreement: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Least share of images with the float32 graph's top class (of features, its nearest other image) "
        "while both keep the same tokens. int8 gives layers back to float32 until it keeps so much of the dense "
        "model's answers that float32 has. null: 0.98 for int8, 0.99 for fp16, 0.95 for bf16.",
    )
    cosine: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Least mean cosine of logits, or of features, with PyTorch's. null: 0.9995 for fp16, 0.99 for bf16 "
        "and int8.",
    )
    keep_slower: bool = Field(
        default=False, description="Keep the precision even where the graph is timed here and is not faster in it."
    )
    tool: Literal["onnxruntime", "modelopt", "nncf"] = Field(
        default="onnxruntime",
        description="What places Q/DQ pairs; modelopt for TensorRT, an extra of its own, nncf for OpenVINO.",
    )
    around: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        default="auto",
        description="int8 on OpenVINO: what the rest of the graph is in; auto: bf16 (fp16 on a GPU) where it is "
        "timed faster here and holds the agreement, else fp32.",
    )


class ParitySection(Section):
    """When two runners count as equal."""

    atol: float = Field(
        default=1e-4,
        gt=0,
        le=ATOL[1],
        description="Largest error of a logit, decisions being equal: absolute where the logits spread by 0.1 to 10, "
        "and in proportion to their spread elsewhere.",
    )
    tie: float = Field(
        default=1e-4,
        ge=0,
        lt=1,
        description="Relative score gap at the cut below which decisions may differ.",
    )
    images: int = Field(default=32, ge=1, le=MOST_ARRAY_IMAGES, description="Images that the ladder is climbed with.")
    golden: int = Field(
        default=8,
        ge=1,
        le=MOST_ARRAY_IMAGES,
        description="Images whose outputs travel in the bundle (at least one batch).",
    )


class BenchSection(Section):
    """How the dense, pruned and free-slicing graphs are timed."""

    runs: int = Field(
        default=50, ge=RUNS[0], le=RUNS[1], description="Interleaved rounds, each timing every graph once."
    )
    warmup: float = Field(default=0.5, ge=WARMUP[0], le=WARMUP[1], description="Least seconds of warm-up per graph.")
    threads: int | None = Field(
        default=None, ge=THREADS[0], le=THREADS[1], description="onnxruntime threads; null: all cores."
    )
    allow_slower: bool = Field(default=False, description="Do not fail when the pruned graph is not faster.")
    here: bool = Field(
        default=False,
        description="Time a graph that is for another machine on this one's CPU all the same; nothing is judged by it.",
    )


class EngineSection(Section):
    """The TensorRT engine."""

    mode: Literal["auto", "require", "skip"] = Field(
        default="auto",
        description="Build where TensorRT is, and a GPU where it needs one; fail without them; or never.",
    )
    workspace_mib: int = Field(
        default=1024,
        ge=WORKSPACE_MIB[0],
        le=WORKSPACE_MIB[1],
        description="Scratch memory that the builder may use, in MiB.",
    )
    capabilities: list[str] = Field(
        default=[],
        description="Compute capabilities of GPUs that an engine of TensorRT for RTX is for; none: 8.0 and newer.",
        json_schema_extra={"items": {"enum": [*CAPABILITIES, *map(float, CAPABILITIES)]}, "uniqueItems": True},
    )

    @field_validator("capabilities", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """8.6 is a number to YAML."""
        return [str(one) if isinstance(one, float) else one for one in value] if isinstance(value, list) else value

    @field_validator("capabilities")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        try:
            EngineOptions(capabilities=tuple(value))
        except InputError as error:
            raise ValueError(str(error)) from error
        return value


class RequireSection(Section):
    """What a bundle must show, or it is not published: measured figures, without a margin."""

    agreement: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Least share of the evaluation images with the dense model's answer.",
    )
    top1_drop: float | None = Field(
        default=None, ge=-1, le=1, description="Most top-1 that may be lost on them, as a share; they need labels."
    )
    speedup: float | None = Field(
        default=None, gt=0, le=1e6, description="Least speed-up over the dense graph, as measured here."
    )
    overhead: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="Most overhead over the floor of the plan, as measured here; 1 is free.",
    )

    @property
    def given(self) -> dict[str, float]:
        """What is required, by key."""
        return {key: value for key, value in self.model_dump().items() if value is not None}
