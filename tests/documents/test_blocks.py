"""Every block of shell and Python in the documents does what the document says.

    pytest -m docs tests/documents -k start

RESNETKIT_DOCS=all executes slow blocks as well; RESNETKIT_DOCS_UPDATE=1 writes into the documents
what was printed; RESNETKIT_STUDIES names the folder of a finished `resnet study degradation`, which
is trained otherwise; RESNETKIT_DOCS_PATIENCE=5 multiplies the time limits, for a busy machine.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from documents.blocks import DOCUMENTS, problems_in
from documents.execution import Execution

PORT = FileLock(Path(tempfile.gettempdir()) / f"resnetkit-port-{os.getuid()}.lock")


@pytest.fixture(scope="session")
def studies(shared_folder: Path) -> Callable[[], Path]:
    """Returns the folder of a finished study, which is trained once in all processes."""

    def finished() -> Path:
        if given := os.environ.get("RESNETKIT_STUDIES"):
            return Path(given).resolve()
        folder = shared_folder / "finished" / "studies"
        with FileLock(shared_folder / "studies.lock"):
            if not folder.exists():
                unfinished = shared_folder / "unfinished"
                words = ["study", "degradation", "--out", str(unfinished)]
                subprocess.run([sys.executable, "-m", "resnetkit", *words], check=True)
                folder.parent.mkdir()
                unfinished.rename(folder)
        return folder

    return finished


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_block_is_executed_or_says_why_not(name: str) -> None:
    assert not [f"{name}:{problem}" for problem in problems_in(DOCUMENTS[name].read_text())]


@pytest.mark.docs
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_block_does_what_the_document_says(
    name: str, tmp_path: Path, studies: Callable[[], Path]
) -> None:
    document = DOCUMENTS[name]
    slow = os.environ.get("RESNETKIT_DOCS") == "all"
    with Execution(
        document, name=name, home=tmp_path / "you", studies=studies, port=PORT, slow=slow
    ) as execution:
        execution.run()
    if os.environ.get("RESNETKIT_DOCS_UPDATE") == "1":
        execution.rewrite()
    if execution.failures:
        pytest.fail("\n\n".join(execution.failures), pytrace=False)
