"""What trainings and studies found, as one HTML file that opens anywhere, without a network."""

import logging

# Where no home can be written, matplotlib keeps its cache in a temporary folder, and says so each
# time; that is no news to a user.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
