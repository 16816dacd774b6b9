"""The stand-in for tensorrt as one for tensorrt_rtx: the same source under the other name."""

from pathlib import Path

exec(compile(Path(__file__).with_name("tensorrt.py").read_text(), "tensorrt_rtx", "exec"), globals())
