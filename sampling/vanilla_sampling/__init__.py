"""The command line of key-frame sampling, at the path its users know."""
