"""How documents are read, compared and executed: each rule can fail."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from documents.blocks import DocumentError, Rules, commands_of, problems_in, read_blocks
from documents.comparison import difference, line_matches, matches, printed_lines, updated
from documents.execution import Execution

CONSOLE = "```console\n$ true\n```\n"


def lines(text: str) -> list[str]:
    return text.strip("\n").split("\n")


# Reading


def test_a_console_block_is_commands_and_their_output() -> None:
    text = "# Title\n\n```console\n$ one \\\n> --more\nfirst\n\nsecond\n\n$ two\n```\n"
    (block,) = read_blocks(text)
    first, second = commands_of(block)
    assert (first.line, first.text) == (4, "one \\\n--more")
    assert first.shown is not None
    assert (first.shown.line, first.shown.lines) == (6, ("first", "", "second"))
    assert (second.line, second.text, second.shown) == (10, "two", None)


def test_text_directly_behind_python_is_its_output() -> None:
    python = "```python\nprint(1)\n```\n"
    (with_output,) = read_blocks(f"{python}\n```text\n1\n```\n")
    assert with_output.output is not None
    assert (with_output.output.line, with_output.output.lines) == (6, ("1",))
    (without,) = read_blocks(f"{python}\nA sentence.\n\n```text\n1\n```\n")
    assert without.output is None
    assert [block.output for block in read_blocks(python + python)] == [None, None]


@pytest.mark.parametrize(
    ("comments", "rules"),
    [
        ("<!-- run: exit 3 -->", Rules(exit_code=3)),
        ("<!-- run: timeout 300 -->", Rules(timeout_s=300)),
        ("<!-- run: slow -->\n<!-- run: studies -->", Rules(is_slow=True, needs_studies=True)),
        ("<!-- run: background -->", Rules(is_background=True)),
        ("<!-- run: no: a cluster\nis needed -->", Rules(not_run="a cluster is needed")),
    ],
)
def test_comments_before_a_block_are_its_rules(comments: str, rules: Rules) -> None:
    blocks = read_blocks(f"{comments}\n{CONSOLE}\n{CONSOLE}")
    assert [block.rules for block in blocks] == [rules, Rules()]


def test_files_and_hidden_commands() -> None:
    text = (
        "<!-- setup: mkdir photos -->\n\n<!-- file: sub/my.yaml -->\n\n```yaml\nseed: 1\n```\n"
        "\n```yaml\nonly: read\n```\n"
    )
    setup, file = read_blocks(text)
    assert (setup.kind, setup.line, setup.content) == ("setup", 1, "mkdir photos")
    assert (file.kind, file.line, file.content) == ("file", 6, "seed: 1\n")
    assert file.rules.file == "sub/my.yaml"


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("- item\n\n  ```console\n  $ echo 1\n  2\n  ```\n", "  "),
        ("````{note}\n\n```console\n$ echo 1\n2\n```\n````\n", ""),
        (":::{note}\n\n```console\n$ echo 1\n2\n```\n:::\n", ""),
        ("> quoted\n>\n> ```console\n> $ echo 1\n> 2\n> ```\n", "> "),
    ],
)
def test_blocks_in_lists_quotes_and_directives_are_found(text: str, prefix: str) -> None:
    (block,) = read_blocks(text)
    (command,) = commands_of(block)
    assert command.shown is not None
    assert (command.line, command.shown.line, command.shown.prefix) == (4, 5, prefix)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```bash\nls\n```\n", "1: a block of bash is not executed: write ```console"),
        ("```pycon\n>>> 1\n```\n", "1: a block of pycon is not executed: write ```python"),
        ("text\n\n```\nls\n```\n", "3: a block without a language"),
        ("text\n\n    ls\n", "3: an indented block"),
        ("```text\nresnet train\n```\n", "2: a command in a block of text"),
        ("```console\nls\n```\n", "2: output before the first command"),
        ("```console\n\n```\n", "2: a console block without a line"),
        ("<!-- run: no: -->\n" + CONSOLE, "1: 'run: no:': expected no: REASON"),
        ("<!-- run: exit three -->\n" + CONSOLE, "1: 'run: exit three'"),
        ("<!-- run: slow -->\n\nText.\n\n" + CONSOLE, "1: no block follows"),
        ("<!-- run: slow -->\n", "1: no block follows"),
        ("See <!-- run: slow --> here.\n", "1: a comment inside a paragraph"),
        ("<!-- file: ../my.yaml -->\n```yaml\n```\n", "1: 'file: ../my.yaml' is not a file"),
        ("<!-- setup: -->\n", "1: setup without a command"),
        ("<!-- run: slow -->\n```yaml\n1\n```\n", "2: a block of yaml is not run"),
        ("<!-- run: exit 1 -->\n```python\n1\n```\n", "3: exit and background are for console"),
        ("<!-- run: background -->\n```console\n$ a\n$ b\n```\n", "3: a block in the background"),
        ("- item\n\n  ```bash\n  ls\n  ```\n", "3: a block of bash"),
    ],
)
def test_what_is_not_understood_is_an_error(text: str, problem: str) -> None:
    (found,) = problems_in(text)
    assert found.startswith(problem)
    with pytest.raises(DocumentError):
        read_blocks(text)


def test_one_problem_does_not_hide_the_next() -> None:
    assert len(problems_in("```\n1\n```\n\n```bash\n2\n```\n")) == 2


# Comparing


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("done in 7.4 s", "done in 1 min 12 s"),
        ("812 images/s", "7,001.5 images/s"),
        ("peak memory 431 MiB", "peak memory 0.7 GiB"),
        ("run a1b2c3d4 of 2026-11-27", "run 00ff00ff00ff of 2027-01-01 10:00:00"),
        ("torch 2.14.1", "torch 2.14.1+cpu"),
        ("0:00:04 left -:--:--", "0:01:04 left 0:00:00"),
        ("test error 2.5 %", "test error 5.5 %"),
        ("test error 0 %", "test error 2.79 %"),
        ("1.39 % (95 % interval 0.60 to 3.22)", "2.5 % (95 % interval 1.40 to 4.63)"),
        ("95 % interval 1.20 to 4.30 %", "95 % interval 3.10 to 6.9 %"),
        ("loss 1.327", "loss 1.401"),
        ("loss 0.00", "loss 0.01"),
        ("classes: ..., 9", "classes: 0, 1, 2, 9"),
        ("name      time\n", "name  time\n"),
        ("────────", "─────"),
    ],
)
def test_what_may_differ(shown: str, printed: str) -> None:
    assert line_matches(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("269,722 parameters", "269,723 parameters"),
        ("test error 2.5 %", "test error 5.6 %"),
        ("(95 % interval 0.60 to 3.22)", "(95 % interval 0.60 to 6.23)"),
        ("loss 1.327", "loss 1.47"),
        ("loss 1.327", "loss nan"),
        ("loss 0.00", "loss 0.02"),
        ("resnet20", "resnet32"),
        ("v1.5", "v1.6"),
        ("done in 7.4 s", "done in 7.4 s, with a warning"),
        ("classes: ..., 9", "classes: 0, 1"),
        ("run a1b2c3d4", "run unknown"),
        ("port 8000", "port 8001"),
    ],
)
def test_what_may_not_differ(shown: str, printed: str) -> None:
    assert not line_matches(shown, printed)


def test_columns_of_percentages_have_their_tolerance() -> None:
    shown = ["network  error %", "resnet20  2.51"]
    assert matches(shown, ["network  error %", "resnet20  4.03"])
    assert not matches(shown, ["network  error %", "resnet20  6.03"])
    assert not matches(["network  error", *shown[1:]], ["network  error", "resnet20  4.03"])


def test_a_line_of_dots_stands_for_any_lines() -> None:
    shown = lines("first\n...\nlast")
    assert matches(shown, lines("first\nlast"))
    assert matches(shown, lines("first\nlast\nlast\nlast"))
    assert not matches(shown, lines("first\nlast\nmore"))
    assert not matches(shown, lines("first"))
    assert matches(lines("..."), [])
    assert not matches(lines("a\nb"), lines("b\na"))
    assert not matches(lines("a"), lines("a\na"))


def test_a_server_is_compared_with_what_it_has_printed_so_far() -> None:
    assert matches(["ready"], ["ready", "a request"], beginning=True)
    assert matches([], ["ready"], beginning=True)
    assert not matches(["ready"], [], beginning=True)
    assert not matches(["ready"], ["a warning", "ready"], beginning=True)


def test_what_remains_on_a_terminal() -> None:
    bar = "train ━━━━━━━━━━ 100% 0:00:04 left 0:00:00 "
    assert printed_lines(f"\r\n\x1b[1mone\x1b[0m  \r\n{bar}\r\nhalf\rwhole\r\n\n") == [
        "one",
        "whole",
    ]


def test_a_diff_leaves_out_what_matches() -> None:
    text = difference(["took 7.4 s", "error 2 %"], ["took 9.9 s", "error 20 %"])
    assert "-error 2 %" in text
    assert "+error 20 %" in text
    assert "7.4" in text
    assert "9.9" not in text
    assert difference(["...", "last"], ["first", "last"]).endswith("-...\n+first\n last")


def test_updates_keep_dots() -> None:
    printed = lines("a 1\nb\nc\nd\nlast 5")
    assert updated(["x"], printed) == printed
    assert updated(["a ...", "x"], printed) == ["a ...", *printed[1:]]
    assert updated(["x", "...", "y"], printed) == ["a 1", "...", "last 5"]
    assert updated(["...", "y"], printed) == ["...", "last 5"]
    assert updated(["x", "..."], printed) == ["a 1", "..."]
    assert updated(["x", "...", "y", "..."], printed) is None
    assert updated(["x", "...", "y"], ["only"]) == ["only"]


# Executing


@pytest.fixture
def execute(tmp_path: Path) -> Callable[..., Execution]:
    """Executes a text as a document."""

    def run(text: str, *, slow: bool = False) -> Execution:
        document = tmp_path / "page.md"
        document.write_text(text)
        studies = tmp_path / "finished"
        studies.mkdir()
        (studies / "report.html").touch()
        home = tmp_path / "you"
        with Execution(
            document,
            name="page.md",
            home=home,
            studies=lambda: studies,
            port=FileLock(tmp_path / "port.lock"),
            slow=slow,
        ) as execution:
            execution.run()
        return execution

    return run


def test_commands_share_folder_and_variables(execute: Callable[..., Execution]) -> None:
    text = (
        "<!-- setup: mkdir sub -->\n<!-- file: sub/words -->\n```text\nhello\n```\n\n"
        "```console\n$ cd sub\n$ export WHO=you\n$ cat words && echo $WHO\nhello\nyou\n$ pwd\n"
        "/home/you/work/sub\n```\n"
    )
    assert execute(text).failures == []


def test_what_differs_is_reported_and_mended(execute: Callable[..., Execution]) -> None:
    text = "- item\n\n  ```console\n  $ echo 1; echo 2 >&2\n  ?\n  $ echo 3\n  ?\n  ```\n"
    execution = execute(text)
    first, second = execution.failures
    assert first.startswith("page.md:4: echo 1; echo 2 >&2\n    printed something else:\n")
    assert "-?\n+1\n+2" in first
    assert second.startswith("page.md:6: echo 3\n")
    execution.rewrite()
    mended = text.replace("?", "1\n  2", 1).replace("?", "3")
    assert execution.document.read_text() == mended


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("```console\n$ exit 4\n$ echo no\n```\n", "page.md:2: exit 4\n    ended with exit code 4"),
        ("<!-- run: exit 3 -->\n" + CONSOLE, "page.md:3: true\n    ended with exit code 0"),
        (
            "<!-- run: timeout 0 -->\n```console\n$ sleep 9\n```\n",
            "page.md:3: sleep 9\n    did not",
        ),
        ("```python\n\nprint(unknown)\n```\n", "page.md:2:  ...\n    raised an exception"),
        ("<!-- run: timeout 0 -->\n```python\nwhile 1: pass\n```\n", "page.md:3: while 1: pass"),
        ("<!-- run: background -->\n" + CONSOLE, "page.md:3: true\n    ended, but should run"),
    ],
)
def test_failures_name_line_and_command(
    text: str, failure: str, execute: Callable[..., Execution]
) -> None:
    (found,) = execute(text).failures
    assert found.startswith(failure)


def test_python_blocks_share_an_interpreter(execute: Callable[..., Execution]) -> None:
    text = (
        "```python\nimport os\n\n\ndef double(x):\n    return 2 * x\n```\n\n"
        "```python\nprint(double(21))\nopen('made', 'w').close()\n```\n```text\n42\n```\n\n"
        "```console\n$ ls\nmade\n```\n\n```python\nraise ValueError(double(1))\n```\n"
    )
    (failure,) = execute(text).failures
    assert failure.startswith("page.md:23: raise ValueError(double(1))\n")
    assert 'page.md", line 23, in <module>' in failure
    assert "ValueError: 2" in failure


def test_nothing_survives_its_block(execute: Callable[..., Execution], tmp_path: Path) -> None:
    text = "```console\n$ sleep 60 & echo $! > sleeper\n```\n"
    execution = execute(text)
    assert execution.failures == []
    assert has_ended(int((execution.folder / "sleeper").read_text()))


def test_nothing_survives_a_killed_test(tmp_path: Path) -> None:
    page, folder = tmp_path / "page.md", tmp_path / "you" / "work"
    page.write_text("```console\n$ sleep 60 & echo $! > sleeper; mv sleeper started; wait\n```\n")
    code = (
        "import pathlib, filelock\nfrom documents.execution import Execution\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "Execution(folder / 'page.md', name='page.md', home=folder / 'you', studies=None,"
        " port=filelock.FileLock(folder / 'port.lock')).run()\n"
    )
    tests = str(Path(__file__).parents[1])
    test = subprocess.Popen([sys.executable, "-c", code], cwd=tests)
    while not (folder / "started").exists():
        assert test.poll() is None
        time.sleep(0.05)
    test.kill()
    test.wait()
    assert has_ended(int((folder / "started").read_text()))


def test_a_server_stays_until_the_document_ends(execute: Callable[..., Execution]) -> None:
    text = (
        "<!-- run: background -->\n```console\n"
        "$ echo $$ > server; sleep 0.2; echo ready; sleep 60\nready\n```\n\n"
        "```console\n$ kill -0 $(cat server)\n```\n\n"
        "<!-- run: exit 1 -->\n```console\n$ flock --nonblock ../../port.lock true\n```\n"
    )
    execution = execute(text)
    assert execution.failures == []
    assert has_ended(int((execution.folder / "server").read_text()))
    assert not execution.port.is_locked


def test_a_server_is_awaited_at_its_address(execute: Callable[..., Execution]) -> None:
    text = (
        "<!-- file: server.py -->\n```python\nimport socket, time\n\n"
        "free = socket.socket()\nfree.bind(('127.0.0.1', 0))\n"
        "address = 'http://127.0.0.1:%d' % free.getsockname()[1]\nprint(address, flush=True)\n"
        "open('port', 'w').write(address.rpartition(':')[2])\n"
        "time.sleep(0.3)\nfree.listen()\ntime.sleep(60)\n```\n\n"
        "<!-- run: background -->\n```console\n$ python server.py\n```\n\n"
        "```python\nimport socket\n\nport = int(open('port').read())\n"
        "socket.create_connection(('127.0.0.1', port)).close()\n```\n"
    )
    assert execute(text).failures == []


def test_slow_blocks_and_those_that_cannot_run_are_left_out(
    execute: Callable[..., Execution],
) -> None:
    text = (
        "<!-- run: slow -->\n```console\n$ false\n```\n\n<!-- run: no: no such program -->\n"
        "```bash\nno-such-program\n```\n"
    )
    assert execute(text).failures == []


def test_slow_blocks_are_executed_on_request(execute: Callable[..., Execution]) -> None:
    (failure,) = execute("<!-- run: slow -->\n```console\n$ false\n```\n", slow=True).failures
    assert "exit code 1" in failure


def test_the_finished_study_is_there_and_nothing_of_mine(
    execute: Callable[..., Execution], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNETKIT_CACHE", "/mine")
    monkeypatch.setenv("SECRET", "mine")
    text = (
        "<!-- run: studies -->\n```console\n$ ls studies\nreport.html\n"
        "$ echo $HOME $RESNETKIT_CACHE $SECRET\n/home/you /home/you/.cache/resnetkit\n```\n"
    )
    assert execute(text).failures == []


def has_ended(process: int) -> bool:
    """Returns whether a process ends within a second."""
    for _ in range(20):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{process}/stat").exists() and is_zombie(process):
            return True
        time.sleep(0.05)
    return False


def is_zombie(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
