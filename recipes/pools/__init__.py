"""Places to work: this process, several of this machine, or a cluster of Ray."""
