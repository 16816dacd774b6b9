"""The torch-free side: runners, engines, parity, benchmarks and bundles."""
