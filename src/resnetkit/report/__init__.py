"""Reports of runs, evaluations and studies: one HTML file each, which opens without a network."""

import logging

# Without a home folder that can be written, matplotlib keeps its cache in a temporary folder and
# says so each time, which does not concern the user.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
