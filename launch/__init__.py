"""One entry per stage. Threads of a matrix product that wait for each other sleep instead of spinning: two trainings
side by side on two cores, or a training beside other work, take a tenth of the time."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded, here and in every child
