"""What calibration makes a budget of: what it may look at, searches, outcomes, latency tables."""
