"""What a target refuses of a graph, or takes and computes wrongly."""
