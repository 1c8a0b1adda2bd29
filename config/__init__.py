"""What every room shares: settings, paths, user errors, safe files, the console, the command line."""

import os

# OpenMP threads that spin while they wait take the cores from the loader's workers (and from everybody else):
# on two busy cores a step took twice as long. Read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
