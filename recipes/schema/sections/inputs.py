"""Sections of what goes in: the model and its weights, and images."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ....exporter.core.bounds import MODEL_ARGS, OTHER_ARGS
from ....exporter.core.errors import InputError
from ....exporter.core.preprocess import check_constants
from ....exporter.pruning.arguments import check_args
from .section import MOST_IMAGES, MOST_SEED, Section, file_key

OUTCOME_IMAGES = 512  # that an outcome is decided and judged on, where a recipe does not say how many


class PreprocessOverrides(Section):
    """What differs from timm's data config of the model; keys left out keep the model's own."""

    mean: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(
        default=None, min_length=1, description="Mean by channel, on a 0..1 scale."
    )
    std: list[Annotated[float, Field(gt=0, le=1)]] | None = Field(
        default=None, min_length=1, description="Standard deviation by channel, on a 0..1 scale."
    )
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = Field(default=None, description="Resizing.")
    crop_pct: float | None = Field(default=None, ge=0.1, le=1, description="Share of the short side that is cropped.")

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _of_unit_pixels(cls, values: Any, info: ValidationInfo) -> Any:
        if isinstance(values, list) and all(type(value) in (int, float) for value in values):
            try:
                numbers = [float(value) for value in values]
                check_constants(**{"mean": [], "std": [], str(info.field_name): numbers}, where="model.preprocess")
            except (InputError, OverflowError) as error:
                raise ValueError(str(error).removeprefix(f"model.preprocess.{info.field_name} is ")) from error
        return values


def _numbers(least: int, most: int) -> dict[str, Any]:
    """JSON Schema of a number, or a list of them, between bounds."""
    held = {"minimum": least, "maximum": most}
    return {**held, "items": held}


class ModelSection(Section):
    """Which model, and where its weights come from."""

    ways = ("checkpoint", "onnx", "pretrained", "random", "given")
    bound: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(ways, ("sha256", "ema", "state"))
    rules = (
        {"anyOf": [{"properties": {key: {"type": "string"}}, "required": [key]} for key in ("name", "checkpoint")]},
    )

    name: str | None = Field(
        default=None,
        min_length=1,
        description="timm model name; null: what lies beside the checkpoint says it.",
    )
    args: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of the timm model.",
        json_schema_extra={
            "properties": {key: _numbers(*bounds) for key, bounds in MODEL_ARGS.items()},
            "additionalProperties": _numbers(*OTHER_ARGS),
        },
    )
    checkpoint: str | None = file_key(
        "Safetensors or PyTorch file, folder of timm or transformers, or hf-hub:OWNER/NAME@REVISION."
    )
    onnx: str | None = file_key("ONNX file that the model was exported to; its weights are found in the graph.")
    sha256: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="Hash of the checkpoint or ONNX file, which another file must have; null: any is taken.",
    )
    ema: bool = Field(
        default=True, description="Take the checkpoint's averaged weights (EMA) where it holds such; false: the others."
    )
    state: str | None = Field(
        default=None,
        min_length=1,
        description="Which tensors of the checkpoint, where it holds those of several models, such as teacher; null: "
        "the only ones.",
    )
    pretrained: bool = Field(default=False, description="Fetch timm's weights from the model hub.")
    random: int | None = Field(
        default=None, ge=0, le=MOST_SEED, description="Seed of random weights, for trying things out."
    )
    given: bool = Field(default=False, description="A model in memory, handed over in Python.")
    preprocess: PreprocessOverrides = Field(default_factory=PreprocessOverrides)

    @field_validator("args")
    @classmethod
    def _bounded(cls, args: dict[str, Any]) -> dict[str, Any]:
        try:
            check_args(args)
        except InputError as error:
            raise ValueError(str(error).removeprefix("model.args.")) from error
        return args

    @model_validator(mode="after")
    def _named(self) -> ModelSection:
        if self.name is None and self.checkpoint is None:
            raise ValueError("name is missing; give the name of a timm model")
        return self

    @model_validator(mode="after")
    def _of_a_checkpoint(self) -> ModelSection:
        for key, given in (("ema", not self.ema), ("state", self.state is not None)):
            if given and self.checkpoint is None:
                raise ValueError(f"{key} says which weights of a checkpoint and goes with it; take it out")
        return self


class ImagesSection(Section):
    """Which images; none of them is needed to be labelled."""

    ways = ("path", "generator", "given")
    bound: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(("generator", "given"), ("classes",))
    rules = (
        {
            "not": {
                "properties": {"generator": {"type": "string"}, "count": {"type": "null"}},
                "required": ["generator", "count"],
            }
        },
    )

    path: str | None = file_key(
        "Folder of photos, folder of class folders, tar or parquet file or a folder of such, .npz or one photo."
    )
    classes: str | None = file_key(
        "Which folder is which class: names in class order, one a line or as a JSON list, or a JSON mapping from names "
        "to indices; null: numbers are indices, WNIDs are ImageNet's, other names go in order."
    )
    generator: Literal["shapes", "noise"] | None = Field(
        default=None, description="Make images instead: the quickstart's labelled shapes, or normal noise."
    )
    given: bool = Field(default=False, description="Images in memory, handed over in Python.")
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="Seed of the generator.")
    count: int | None = Field(
        default=64,
        ge=1,
        le=MOST_IMAGES,
        description="How many, spread evenly over the source; null takes all. Left out beside a target by outcome: "
        f"{OUTCOME_IMAGES}.",
    )
    every: int = Field(default=1, ge=1, le=MOST_IMAGES, description="Take every n-th image only ...")
    offset: int = Field(
        default=0,
        ge=0,
        le=MOST_IMAGES,
        description="... from this one on: disjoint halves are every 2, offset 0 and 1.",
    )

    @model_validator(mode="after")
    def _some(self) -> ImagesSection:
        if self.generator and self.count is None:
            raise ValueError("count must be a number when images are generated")
        if self.classes is not None and self.path is None:
            raise ValueError("classes names class folders and goes with path; take it out")
        return self
