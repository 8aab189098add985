"""Workers start from inside a page that is a file, and a page without them is told why."""

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path

import pytest

from helpers.browser import OpenPage

pytestmark = pytest.mark.browser

ECHO = "onmessage = ({ data }) => postMessage({ twice: 2 * data.number });"
BROKEN = "throw new Error('out of order');"


def page_with_worker(worker: str, policy: str, before: str = "") -> str:
    """Returns a page that starts a worker and writes into its title what comes of it."""
    module = files("resnetkit.report.play").joinpath("worker.js").read_text(encoding="utf-8")
    script = f"""{before}
{module.replace("export function", "function")}
const tell = (text) => {{ document.title = text; }};
const worker = startWorker(
  {json.dumps(worker)},
  ({{ twice }}) => tell(`twice ${{twice}}`),
  (reason) => tell(`failed: ${{reason}}`),
);
worker.send({{ number: 21 }});
"""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    content = f"default-src 'none'; script-src 'sha256-{digest}'; {policy}"
    return (
        f'<!doctype html><html lang="en"><meta http-equiv="Content-Security-Policy"'
        f' content="{content}"><title>nothing yet</title><script>{script}</script></html>'
    )


@pytest.mark.parametrize(
    ("worker", "before", "title"),
    [
        (ECHO, "", "twice 42"),
        (BROKEN, "", "failed: Uncaught Error: out of order"),
        (ECHO, "delete window.Worker;", "failed: Worker is not defined"),
    ],
    ids=["it works", "it fails", "no workers"],
)
def test_a_worker_starts_or_its_failure_is_told(
    open_page: OpenPage, tmp_path: Path, worker: str, before: str, title: str
) -> None:
    from playwright.sync_api import expect

    path = tmp_path / "page.html"
    path.write_text(page_with_worker(worker, "worker-src blob:", before), encoding="utf-8")
    with open_page(path.as_uri()) as page:
        expect(page).to_have_title(title)
