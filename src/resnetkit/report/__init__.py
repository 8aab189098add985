"""Reports of runs, evaluations and studies: one HTML file each, which opens without a network."""

import logging

# Without a writable home folder, matplotlib keeps its cache in a temporary folder and warns of it
# each time, which does not concern the user.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
