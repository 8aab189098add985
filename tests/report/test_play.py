"""The interactive page without a browser: its scripts, its data, and what it refuses."""

import base64
import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest
import torch

from helpers.play import write_studies
from resnetkit.errors import DataError, RecipeError
from resnetkit.models.blocks import BasicBlock, BlockOptions
from resnetkit.report.language import ENGLISH, find_language
from resnetkit.report.play import bundle as bundles
from resnetkit.report.play.bundle import bundle, policy, source
from resnetkit.report.play.messages import messages
from resnetkit.report.play.page import write_play_page
from resnetkit.report.play.selection import SCALE, WITHOUT_NORM, Selection, select_runs, task_of
from resnetkit.report.play.stills import path_charts
from resnetkit.report.play.values import play_runs, script_json
from resnetkit.studies.questions.gradients import GRADIENTS
from resnetkit.studies.runner import trials_of


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_studies(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def page(studies: Path) -> str:
    path = studies / "play.html"
    write_play_page(select_runs(studies), path)
    return path.read_text(encoding="utf-8")


def test_modules_become_one_script_with_their_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "a.js": 'import { twice } from "./b.js";\nconst secret = 1;\n'
        "export const five = twice(2) + secret;\n",
        "b.js": "const secret = 2;\nexport function twice(n) {\n  return secret * n;\n}\n",
    }
    monkeypatch.setattr(bundles, "source", modules.__getitem__)
    script = bundle("a")
    assert "import" not in script
    assert "export" not in script
    program = f"{script}\nconsole.log(module_a.five);"
    answer = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "5\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('import x from "./b.js";\n', "is not a form that can be bundled"),
        ('import { a } from "./a.js";\n', "import each other"),
    ],
)
def test_modules_that_cannot_be_bundled(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "source", lambda name: text)
    with pytest.raises(ValueError, match=message):
        bundle("a")


def test_the_policy_allows_the_script_of_the_page_and_no_other(page: str) -> None:
    found = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert found
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1
    expected = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src &#39;sha256-{expected}&#39;" in found[1]
    assert "default-src &#39;none&#39;" in found[1]
    assert "connect-src" not in policy([""])


def test_no_text_of_the_data_ends_its_element() -> None:
    value = {"name": "</script><script>alert(1)</script><!--", "amount": 0.1}
    text = str(script_json(value))
    assert "<" not in text
    assert json.loads(text) == value


def test_the_page_loads_nothing_and_is_small(page: str) -> None:
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    assert "@import" not in page
    assert len(page.encode()) <= 8 * 2**20


def test_the_data_of_the_page_are_those_of_the_files(studies: Path) -> None:
    runs = play_runs(select_runs(studies))
    assert len(runs) == 14
    for run in runs:
        lines = (studies / run.folder / "metrics.jsonl").read_text().splitlines()
        *epochs, final = map(json.loads, lines)
        assert run.train_error == [event["train_error"] for event in epochs]
        assert run.test_error == [event["test_error"] for event in epochs]
        assert run.final_test_error == final["test"]["error"]
        for name, values in run.probes.items():
            assert values == json.loads((studies / run.folder / f"probes/{name}.json").read_text())


def test_still_pictures_are_on_the_page_for_those_without_scripts(page: str) -> None:
    assert page.count("<svg") >= 12
    assert 'class="text no-script"' in page


def test_what_is_read_without_scripts_is_true_of_the_still_pictures(page: str) -> None:
    body = page[: page.index("<script")]
    read = re.sub(r"<(p|span) [^>]*needs-script.*?</\1>", "", body, flags=re.DOTALL)
    of_others = (
        "Move the epoch",
        "follows the epoch",
        "can be clicked",
        "Click one",
        "faint lines",
        "On the left",
        "both bars",
        "and their number of parameters",
    )
    assert [text for text in of_others if text in read] == []
    for text in ("of 56 layers from the inside, after training", "at 56 layers both are high"):
        assert text in read


def test_the_shortest_still_path_goes_through_no_block(studies: Path) -> None:
    groups = {"resnet56": [run for run in play_runs(select_runs(studies)) if "paths" in run.probes]}
    for chart in path_charts(groups):
        assert chart.lines[0].x == tuple(range(28))


def test_a_run_that_diverged_in_its_first_epoch_is_shown(tmp_path: Path) -> None:
    trial = next(
        trial for trial in trials_of(GRADIENTS, SCALE, None) if trial.group in WITHOUT_NORM
    )
    task = task_of(tmp_path, trial)
    (task.folder / "probes").mkdir(parents=True)
    (task.folder / "recipe.yaml").write_text(trial.recipe.to_yaml())
    (task.folder / "failure.json").write_text("{}")
    (task.folder / "probes/gradients.json").write_text('{"input": [0.1, 0.2]}')
    (run,) = play_runs(Selection(tmp_path, {"plain56-he": (task,)}, (), ()))
    assert run.diverged
    assert json.loads(script_json(run))["steps_per_epoch"] is None


def test_a_missing_measurement_is_missing_work(studies: Path, tmp_path: Path) -> None:
    root = write_studies(tmp_path)
    assert select_runs(root).missing == []
    probe = next(root.glob("runs/plain56*seed0*")) / "probes/layers.json"
    probe.write_text("{")
    selection = select_runs(root)
    assert [task.folder.name for task in selection.missing] == [probe.parent.parent.name]
    assert selection.trainings_missing == 0
    assert 0 < selection.seconds_missing < 60


def test_a_run_of_another_recipe_is_refused(tmp_path: Path) -> None:
    root = write_studies(tmp_path)
    recipe = next(root.glob("runs/plain20*seed0*")) / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("lr: 0.02", "lr: 0.03"))
    with pytest.raises(
        RecipeError, match=r"holds a run of another recipe .* choose another folder"
    ):
        select_runs(root)


def test_corrupt_metrics_are_refused(tmp_path: Path) -> None:
    root = write_studies(tmp_path)
    metrics = next(root.glob("runs/plain20*seed0*")) / "metrics.jsonl"
    metrics.write_text("{\n" + metrics.read_text())
    with pytest.raises(DataError, match=r"metrics.jsonl is corrupt: line 1"):
        write_play_page(select_runs(root), tmp_path / "play.html")
    assert not (tmp_path / "play.html").exists()


def test_scripts_have_all_texts_in_both_languages() -> None:
    english, korean = messages(ENGLISH), messages(find_language("ko"))
    assert english.texts.keys() == korean.texts.keys()
    assert all(text == translated for text, translated in english.texts.items())
    shown = {text for text in korean.texts if re.search("[a-z]{3}", text)}
    assert all(korean.texts[text] != text for text in shown)
    assert english.forms[:3] == [1, 0, 1]
    assert set(korean.forms) == {0}


def test_the_code_on_the_page_is_the_residual_block_and_runs() -> None:
    names: dict[str, object] = {}
    code = source("block.txt")
    assert len([line for line in code.splitlines() if line.strip()]) == 10
    exec(compile(code, "block.txt", "exec"), names)
    block = names["Block"](16)  # type: ignore[operator]
    ours = BasicBlock(16, 16, options=BlockOptions(shortcut="A"))
    theirs = block.state_dict()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.values(), strict=True)))
    x = torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x), ours(x))
