"""What predicts on machines without torch never imports it."""

import subprocess
import sys

BLOCKED = """
import sys
sys.modules["torch"] = None  # an import of it fails
import resnetkit.cli.predict
import resnetkit.inference.features
import resnetkit.inference.nearest
import resnetkit.inference.predictor
import resnetkit.inference.sources
"""


def test_images_are_found_decoded_and_ranked_without_torch() -> None:
    subprocess.run([sys.executable, "-c", BLOCKED], check=True, timeout=60)
