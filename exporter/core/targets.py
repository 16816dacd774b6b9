"""Where a graph will run, as a table of data: opset, precisions, operators that are missing or wrong, known faults."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from .errors import InputError, did_you_mean
from .operators import (
    LACKS_8_5,
    LACKS_8_6,
    LACKS_10_3,
    LACKS_10_13,
    LACKS_10_16,
    LACKS_OPENVINO,
    LACKS_RTX,
    NOWHERE,
    REFUSES_OPENVINO,
    REFUSES_RTX,
)

if TYPE_CHECKING:  # Python 3.8, which run_on_device.py serves, cannot make it
    Capability = tuple[int, int]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Runtime = Literal["onnxruntime", "openvino", "tensorrt"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)


@dataclass(frozen=True)
class Target:
    """A runtime that takes a graph.

    Attributes:
        name: as a recipe names it.
        runtime: which runner serves it.
        opset: highest ONNX opset that it takes.
        precisions: those that its graphs may be written in, of `PRECISIONS` and in that order.
        types: element types that it takes, as ONNX names them.
        lacks: operators without an importer; passes lower some of them.
        refuses: operators that it has, but not for every element type of their first input: which, by type.
        wrong: scatters whose `reduction` it refuses, replaces or computes wrongly, with what it does.
        slow: operators that it takes with a loss of speed, with the reason.
        domains: of operators beyond ONNX's own.
        providers: onnxruntime execution providers, in order.
        device: of OpenVINO, such as `CPU`; None for other runtimes.
        tensorrt: major and minor version; None for TensorRT for RTX, which counts its own.
        rtx: major and minor version of TensorRT for RTX.
        inner_float32: precisions in which it computes a softmax in float32 though it is typed narrower, and casts late.
        typing: how a TensorRT network takes its precision: `weak` (flags of the builder, types as a wish), `either`
            (strong where the graph holds fp16) or `strong` (the graph's types are the engine's).
        jetsons: compute capabilities of the Jetsons that run it, by name.
        largest_k: limit of TopK's K.
        integer_topk: whether TopK takes integers.
        sorted_topk: whether TopK has to sort.
        int64: whether int64 is native; else inputs and outputs may be neither int64 nor bool, and weights are clamped.
        symmetric: whether quantization must be int8 and symmetric (zero point 0).
        computed_scales: whether the scales of that may be computed.
        silent: whether what is `wrong` is accepted without an error.
        faults: known ones, each with a link.
        notes: for a person.
    """

    name: str
    runtime: Runtime
    opset: int
    precisions: tuple[str, ...]
    types: frozenset[str]
    lacks: frozenset[str] = frozenset()
    refuses: tuple[tuple[str, frozenset[str]], ...] = ()
    wrong: tuple[tuple[str, str], ...] = ()
    slow: tuple[tuple[str, str], ...] = ()
    domains: frozenset[str] = frozenset()
    providers: tuple[str, ...] = ()
    device: str | None = None
    tensorrt: tuple[int, int] | None = None
    rtx: tuple[int, int] | None = None
    inner_float32: frozenset[str] = frozenset()
    typing: Literal["weak", "either", "strong"] | None = None
    jetsons: tuple[tuple[str, Capability], ...] = ()
    largest_k: int | None = None
    integer_topk: bool = True
    sorted_topk: bool = False
    int64: bool = True
    symmetric: bool = False
    computed_scales: bool = False
    silent: bool = False
    faults: tuple[tuple[str, str], ...] = ()
    notes: str = ""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names of it."""
        return tuple(alias for alias, name in ALIASES.items() if name == self.name)

    @property
    def token_multiple(self) -> int:
        """What numbers of tokens should be multiples of: for others TensorRT adds kernels that pad and cut."""
        return 8 if self.runtime == "tensorrt" or "TensorrtExecutionProvider" in self.providers else 1

    @property
    def compares(self) -> bool:
        """Whether stages had better compare tokens pair by pair than sort them: newer compilers need fewer kernels so.

        Not TensorRT 8.6: on an H100 such stages came out wrong or were not built, and one that sorts came out right.
        """
        return self.rtx is not None or (self.tensorrt or (0, 0)) >= (10, 13)

    @property
    def is_cpu(self) -> bool:
        """Whether it is this machine's processor that its graphs are for."""
        return self.device == "CPU" or self.providers[:1] == ("CPUExecutionProvider",)

    @property
    def no_engine(self) -> str | None:
        """Why no engine is ever built of its graphs; None where TensorRT may build one."""
        if self.runtime != "openvino":
            return None
        return f"none belongs to {self.name}: OpenVINO compiles the graph when it loads it"

    def precisions_on(self, capability: Capability) -> tuple[str, ...]:
        """The precisions of its graphs that a GPU of this compute capability runs."""
        return tuple(precision for precision in self.precisions if precision in precisions_of(capability))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for `vitrim targets --json`."""
        return {
            "name": self.name,
            "aliases": list(self.aliases),
            "runtime": self.runtime,
            "device": self.device,
            "tensorrt": None if self.tensorrt is None else ".".join(map(str, self.tensorrt)),
            "rtx": None if self.rtx is None else ".".join(map(str, self.rtx)),
            "opset": self.opset,
            "precisions": list(self.precisions),
            "typing": self.typing,
            "types": sorted(self.types),
            "lacks": sorted(self.lacks),
            "refuses": {kind: sorted(operators) for kind, operators in self.refuses},
            "wrong": dict(self.wrong),
            "slow": dict(self.slow),
            "largest_k": self.largest_k,
            "integer_topk": self.integer_topk,
            "sorted_topk": self.sorted_topk,
            "int64": self.int64,
            "symmetric": self.symmetric,
            "computed_scales": self.computed_scales,
            "jetsons": {
                name: {"capability": f"{major}.{minor}", "precisions": list(self.precisions_on((major, minor)))}
                for name, (major, minor) in self.jetsons
            },
            "faults": [{"what": what, "link": link} for what, link in self.faults],
            "notes": self.notes,
        }


XAVIER, ORIN = ("Xavier", (7, 2)), ("Orin", (8, 7))
THOR = ("Thor", (11, 0))  # CUDA 12 called it 10.1

# Precision, least compute capability, and capabilities above it that lack it (NVIDIA's TensorRT support matrices).
HARDWARE: tuple[tuple[str, Capability, frozenset[Capability]], ...] = (
    ("fp32", (0, 0), frozenset()),
    ("fp16", (5, 3), frozenset({(6, 1)})),
    ("bf16", (8, 0), frozenset()),
    ("int8", (6, 1), frozenset({(6, 2)})),
    ("fp8", (8, 9), frozenset()),
)


def precisions_of(capability: Capability) -> tuple[str, ...]:
    """Precisions that TensorRT runs on GPUs of a compute capability, whatever its version knows.

    Args:
        capability: major and minor, such as (8, 7) of an Orin.

    Returns:
        of `PRECISIONS` and in that order, then `fp8` where there is any: from 8.9 on, so on no Orin.
    """
    return tuple(name for name, least, without in HARDWARE if capability >= least and capability not in without)


_GITHUB = "https://github.com"
_SCATTER_IGNORED = tuple(
    (op, f"TensorRT 8.x ignores it and overwrites instead ({_GITHUB}/NVIDIA/TensorRT/issues/3750)")
    for op in ("ScatterElements", "ScatterND")
)
_SCATTER_PLUGIN = (
    ("ScatterElements", "TensorRT 10 and later make a plugin of it"),
    ("ScatterND", f"TensorRT 10 and later refuse it ({_GITHUB}/onnx/onnx-tensorrt/issues/957)"),
)
_SCATTER_REFUSED = tuple((op, "TensorRT for RTX refuses it") for op in ("ScatterElements", "ScatterND"))
_LARGEST_K = 3840  # ITopKLayer's limit in every version so far

_PLAIN = frozenset({"FLOAT", "FLOAT16", "INT8", "UINT8", "INT32", "INT64", "BOOL"})
_TYPES_10 = _PLAIN | {"BFLOAT16", "FLOAT8E4M3FN", "INT4"}
_TYPES_10_13 = _TYPES_10 | {"FLOAT4E2M1"}
_TYPES_CUDA = _PLAIN | {"DOUBLE", "INT16", "UINT16", "UINT32", "UINT64", "STRING", "INT4", "UINT4"}
_TYPES_CPU = _TYPES_CUDA | {"FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"}
_TYPES_OPENVINO = _TYPES_CUDA | {"FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT8E8M0", "FLOAT4E2M1"}
_NO_KERNEL = "onnxruntime has no CUDA kernel for it: it runs on the CPU, with copies there and back"
_WITHOUT_BF16 = tuple(precision for precision in PRECISIONS if precision != "bf16")
_OPENVINO = Target(
    "openvino",
    "openvino",
    24,
    PRECISIONS,
    _TYPES_OPENVINO | {"BFLOAT16"},
    lacks=LACKS_OPENVINO,
    refuses=REFUSES_OPENVINO,
    device="CPU",
    inner_float32=frozenset({"bf16"}),
    faults=(("TopK gives equal values in any order", f"{_GITHUB}/openvinotoolkit/openvino/pull/32201"),),
    notes="OpenVINO on any CPU; bf16 is fast with AVX512-BF16 or AMX, fp16 with AVX512-FP16, AMX-FP16 or on Arm",
)

_ALL = (
    Target(
        "ort-cpu",
        "onnxruntime",
        23,
        ("fp32", "int8"),
        _TYPES_CPU,
        domains=frozenset({"com.microsoft"}),
        providers=("CPUExecutionProvider",),
        notes="onnxruntime on any CPU; fp16 graphs run, through casts to float32, and are slower for it",
    ),
    Target(
        "ort-cuda",
        "onnxruntime",
        22,
        ("fp32", "fp16", "int8"),
        _TYPES_CUDA,
        lacks=frozenset({"Attention"}),
        slow=tuple((op, _NO_KERNEL) for op in ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "QLinearMatMul")),
        domains=frozenset({"com.microsoft"}),
        providers=("CUDAExecutionProvider", "CPUExecutionProvider"),
        notes="onnxruntime on an NVIDIA GPU; unverified on a GPU",
    ),
    Target(
        "ort-trt",
        "onnxruntime",
        22,
        ("fp32", "fp16", "int8"),
        _PLAIN,
        lacks=LACKS_10_13,
        wrong=_SCATTER_PLUGIN,
        symmetric=True,
        largest_k=_LARGEST_K,
        providers=("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
        notes="onnxruntime's TensorRT provider; what it does not take runs on CUDA; unverified on a GPU",
    ),
    _OPENVINO,
    replace(
        _OPENVINO,
        name="openvino-gpu",
        precisions=_WITHOUT_BF16,
        types=_TYPES_OPENVINO,
        device="GPU",
        inner_float32=frozenset(),
        notes="OpenVINO on an Intel GPU; unverified on one",
    ),
    replace(
        _OPENVINO,
        name="openvino-npu",
        precisions=_WITHOUT_BF16,
        types=_TYPES_OPENVINO,
        device="NPU",
        inner_float32=frozenset(),
        notes="OpenVINO on an Intel NPU; unverified on one",
    ),
    Target(
        "trt-8.5",
        "tensorrt",
        17,
        ("fp32", "fp16", "int8"),
        _PLAIN,
        lacks=LACKS_8_5,
        wrong=_SCATTER_IGNORED,
        tensorrt=(8, 5),
        typing="weak",
        jetsons=(XAVIER, ORIN),
        largest_k=_LARGEST_K,
        sorted_topk=True,
        integer_topk=False,
        int64=False,
        symmetric=True,
        silent=True,
        faults=(("TopK's K must be an initializer", f"{_GITHUB}/onnx/onnx-tensorrt/issues/947"),),
        notes="JetPack 5.1; int64 weights are narrowed to int32",
    ),
    Target(
        "trt-8.6",
        "tensorrt",
        17,
        ("fp32", "fp16", "int8"),
        _PLAIN,
        lacks=LACKS_8_6,
        wrong=_SCATTER_IGNORED,
        tensorrt=(8, 6),
        typing="weak",
        jetsons=(ORIN,),
        largest_k=_LARGEST_K,
        sorted_topk=True,
        int64=False,
        symmetric=True,
        silent=True,
        faults=(("fused attention is not found on Orin", f"{_GITHUB}/NVIDIA/TensorRT/issues/3575"),),
        notes="JetPack 6.0; int64 weights are narrowed to int32",
    ),
    Target(
        "trt-10.3",
        "tensorrt",
        20,
        PRECISIONS,
        _TYPES_10,
        lacks=LACKS_10_3,
        wrong=_SCATTER_PLUGIN,
        tensorrt=(10, 3),
        typing="either",
        jetsons=(ORIN,),
        largest_k=_LARGEST_K,
        sorted_topk=True,
        symmetric=True,
        faults=(("fp16 ViTs reported wrong: prove the engine", f"{_GITHUB}/NVIDIA/TensorRT/issues/4723"),),
        notes="JetPack 6.1 and 6.2",
    ),
    Target(
        "trt-10.13",
        "tensorrt",
        22,
        PRECISIONS,
        _TYPES_10_13,
        lacks=LACKS_10_13,
        wrong=_SCATTER_PLUGIN,
        tensorrt=(10, 13),
        typing="strong",
        jetsons=(THOR,),
        largest_k=_LARGEST_K,
        sorted_topk=True,
        symmetric=True,
        notes="JetPack 7.0 and 7.1, and desktops with any TensorRT 10 from here on",
    ),
    Target(
        "trt-10.16",
        "tensorrt",
        24,
        PRECISIONS,
        _TYPES_10_13,
        lacks=LACKS_10_16,
        wrong=_SCATTER_PLUGIN,
        tensorrt=(10, 16),
        typing="strong",
        jetsons=(ORIN, THOR),
        largest_k=_LARGEST_K,
        sorted_topk=True,
        symmetric=True,
        notes="JetPack 7.2; knows Attention (since 10.14), RMSNormalization and RotaryEmbedding (since 10.15)",
    ),
    Target(
        "trt-11",
        "tensorrt",
        25,
        PRECISIONS,
        _TYPES_10_13,
        lacks=NOWHERE,
        wrong=_SCATTER_PLUGIN,
        tensorrt=(11, 0),
        typing="strong",
        jetsons=(ORIN, THOR),
        largest_k=_LARGEST_K,
        sorted_topk=True,
        symmetric=True,
        notes="strongly typed only: precision comes from the graph; on Jetson from 11.4.1 and JetPack 7.2.2 on",
    ),
    Target(
        "trt-rtx",
        "tensorrt",
        27,
        PRECISIONS,
        _TYPES_10_13,
        lacks=LACKS_RTX,
        wrong=_SCATTER_REFUSED,
        rtx=(1, 7),
        typing="strong",
        largest_k=_LARGEST_K,
        refuses=REFUSES_RTX,
        symmetric=True,
        computed_scales=True,
        notes="TensorRT for RTX: engines for GPUs from Ampere on, built on any machine; no Jetson; unverified on a GPU",
    ),
)
TARGETS = {target.name: target for target in _ALL}
ALIASES = {
    "jetpack-5": "trt-8.5",
    "jetpack-6.0": "trt-8.6",
    "jetpack-6": "trt-10.3",
    "jetpack-7": "trt-10.13",  # what every JetPack 7 takes
    "jetpack-7.2": "trt-10.16",
    "trt-10": "trt-10.13",
}
# Targets among which an export chooses the fastest by trying.
GROUPS = {"cpu": ("ort-cpu", "openvino")}


def group_of(name: str) -> tuple[Target, ...]:
    """The targets of a group such as `cpu`, or the one target of that name or alias.

    Raises:
        InputError: there is none.
    """
    return tuple(map(get_target, GROUPS.get(name, (name,))))


def get_target(name: str) -> Target:
    """A target by name or alias.

    Raises:
        InputError: there is none; close matches and all names are given.
    """
    known = ALIASES.get(name, name)
    if known not in TARGETS:
        names = [*TARGETS, *ALIASES, *GROUPS]
        hint = did_you_mean(name, names)
        raise InputError(f"there is no target {name!r}{hint} (there are {', '.join(names)})")
    return TARGETS[known]
