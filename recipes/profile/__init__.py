"""`vitrim profile`: a table of measured latencies."""
