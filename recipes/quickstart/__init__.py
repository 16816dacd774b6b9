"""The embedded model that works without any network: its architecture, training script and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MODEL_NAME = "vit_tiny_patch16_224"
MODEL_ARGS: dict[str, Any] = {
    "img_size": 112,
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 4,
    "num_classes": 10,
}
WEIGHTS = Path(__file__).parent / "weights.safetensors"
TRAIN_SEED = 1
HELD_OUT_SEED = 2
