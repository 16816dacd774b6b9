"""The parts of benchmarks/engines.py: what is planned, how a step is done in a process of its own, what is written."""
