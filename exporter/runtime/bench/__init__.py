"""Latencies: interleaved, summed up, laid side by side."""
