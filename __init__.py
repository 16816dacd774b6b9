"""vitrim: pruned Vision Transformers, exported to the edge and proven right.

    pruned = vitrim.prune(model, "frugal", flops_ratio=0.65)      # a timm model in hand; an nn.Module comes back
    vitrim.evaluate(pruned, loader, reference=model)              # agreement, KL, top-1, with intervals
    bundle = vitrim.export(pruned, "out/", images="photos/", target="jetpack-6", precision="fp16")

The functions are those of `vitrim.api`, imported on first use; `recipes` is also a sub-package, so that function is
`vitrim.api.recipes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from .api import (
        bench,
        build,
        calibrate,
        check,
        clean,
        compare,
        device,
        devices,
        doctor,
        evaluate,
        evaluate_bundle,
        export,
        inspect,
        lint,
        methods,
        models,
        new,
        optimize,
        profile,
        prune,
        recipe,
        report,
        slim,
        sweep,
        targets,
        track,
        triton,
    )
    from .exporter.core.errors import (
        EnvironmentLackError,
        InputError,
        NotFasterError,
        ParityError,
        RequirementError,
        UnsupportedError,
        VitrimError,
    )

__all__ = [
    "EnvironmentLackError",
    "InputError",
    "NotFasterError",
    "ParityError",
    "RequirementError",
    "UnsupportedError",
    "VitrimError",
    "bench",
    "build",
    "calibrate",
    "check",
    "clean",
    "compare",
    "device",
    "devices",
    "doctor",
    "evaluate",
    "evaluate_bundle",
    "export",
    "inspect",
    "lint",
    "methods",
    "models",
    "new",
    "optimize",
    "profile",
    "prune",
    "recipe",
    "report",
    "slim",
    "sweep",
    "targets",
    "track",
    "triton",
]


def __getattr__(name: str) -> object:
    """A name of `__all__`, imported on first use."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".exporter.core.errors" if name.endswith("Error") else ".api", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__", "api"]
