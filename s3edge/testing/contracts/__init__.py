"""One contract suite a port, one file a suite."""
