"""What a device does with a bundle: build its engine, check it against the golden outputs, time it."""
