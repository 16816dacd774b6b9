"""The folder that is shipped: its manifest, its check, its golden outputs, and where it may lie."""
