"""run_on_device.py: the runtime as one file, and how it is put together."""
