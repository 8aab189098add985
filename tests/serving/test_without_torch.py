"""A server of an exported network never imports torch, nor what only training needs."""

import subprocess
import sys

BLOCKED = """
import sys
for name in ("torch", "torchvision", "sklearn", "scipy", "matplotlib", "joblib"):
    sys.modules[name] = None  # an import of it fails
import resnetkit.cli.serve
import resnetkit.serving.server
import resnetkit.serving.model
"""


def test_the_server_is_imported_without_torch() -> None:
    subprocess.run([sys.executable, "-c", BLOCKED], check=True, timeout=60)
