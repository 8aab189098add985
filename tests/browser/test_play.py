"""The interactive page in a browser: its numbers are those of the files, for everybody."""

import json
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers.browser import OpenPage, scrolls_sideways, violations
from helpers.play import write_studies
from resnetkit.report.language import find_language
from resnetkit.report.play import page as page_module
from resnetkit.report.play.page import write_play_page
from resnetkit.report.play.selection import select_runs
from resnetkit.report.play.values import live_data

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

TABLES = "curves-20,curves-56,layers-gradients,layers-residuals,question-deep"
REVEALED = f"#predict=shallow.same&open={TABLES}"


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_studies(tmp_path_factory.mktemp("studies"))
    selection = select_runs(root)
    packed = live_data(selection)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "live_data", lambda _: packed)  # packed once, for both
        write_play_page(selection, root / "en.html", find_language("en"))
        patch.setattr(page_module, "still_pictures", lambda runs, t: defaultdict(list))
        write_play_page(selection, root / "ko.html", find_language("ko"))
    return root


@pytest.fixture(scope="module")
def url(studies: Path) -> str:
    return (studies / "en.html").as_uri()


def stored(folder: Path, file: str, item: str) -> float:
    """Returns the number of a file, by the entry that the page names."""
    path = folder / file
    if file == "metrics.jsonl":
        when, _, field = item.partition(": ")
        events = [json.loads(line) for line in path.read_text().splitlines()]
        if when == "final":
            split, name = field.split(".")
            return float(next(e for e in events if e["event"] == "final")[split][name])
        epoch = int(when.removeprefix("epoch "))
        return float(next(e for e in events if e.get("epoch") == epoch)[field])
    match = re.fullmatch(r"(.+)\[(\d+)\]", item)
    assert match, item
    return float(json.loads(path.read_text())[match[1]][int(match[2])])


def numbers(page: "Page") -> list[dict[str, Any]]:
    """Returns all numbers of the page that name a file."""
    return page.eval_on_selector_all(  # type: ignore[no-any-return]
        "button.number",
        "buttons => buttons.map(button => ({...button.dataset, text: button.textContent}))",
    )


def folders(page: "Page") -> list[str]:
    text = page.locator("#data").text_content()
    assert text
    return [run["folder"] for run in json.loads(text)["runs"]]


def test_every_number_equals_the_files_that_it_names(
    open_page: OpenPage, url: str, studies: Path
) -> None:
    with open_page(url + REVEALED) as page:
        runs, shown = folders(page), numbers(page)
    from_files = [
        number
        for number in shown
        if number["item"] != "computed" and number["file"] != "probes/lesions.json"
    ]
    assert len(from_files) > 250
    for number in from_files:
        values = [
            stored(studies / runs[int(index)], number["file"], number["item"])
            for index in number["runs"].split()
        ]
        mean = sum(values) / len(values)
        assert float(number["value"]) == pytest.approx(mean, rel=1e-12)
        if number["text"].endswith("%"):
            assert number["text"] == f"{mean:.1f}\xa0%"


def test_the_prediction_comes_before_the_answer(open_page: OpenPage, url: str) -> None:
    with open_page(url) as page:
        assert page.locator("#explorer").is_hidden()
        page.get_by_label("plain-56").first.check()
        page.locator("input[name=residual][value=same]").check()
        page.get_by_role("button", name="Show the measurement").click()
        answers = page.locator(".answer").all_inner_texts()
        assert "plain-20 trained better." in answers[0]
        assert "You predicted otherwise." in answers[0]
        assert "As you predicted." in answers[1]
        assert page.locator("#explorer").is_visible()
        page.wait_for_url(re.compile("predict=deep.same"))


def test_a_click_shows_where_a_number_comes_from(open_page: OpenPage, url: str) -> None:
    with open_page(url + REVEALED) as page:
        page.locator(".answer button.number").first.click()
        text = page.locator("#trace").inner_text()
        assert "metrics.jsonl" in text
        assert "final: train.error" in text
        assert text.count("plain20-digits-seed") == 3
        page.keyboard.press("Escape")
        assert page.locator("#trace").is_hidden()


def test_a_view_can_be_linked(open_page: OpenPage, url: str) -> None:
    fragment = "#view=explore&predict=shallow.same&depth=20&shortcuts=none&seed=1&epoch=7"
    with open_page(url + fragment) as page:
        assert page.locator("#layers-when").inner_text() == "20 layers, after epoch 6.5"
        assert page.locator("#epoch-value").inner_text() == "after epoch 7 of 13"
        labels = page.locator("#curves .panel").first.locator(".readout").inner_text()
        assert "plain-20" in labels
        assert "resnet" not in labels
    with open_page(url + "#depth=7&epoch=x&off=<b>&block=layer9.9&predict=a.b") as page:
        assert page.locator("#predict-form").is_visible()
        assert page.locator("input[name=depth][value='56']").is_checked()


def test_a_link_to_what_the_page_lacks_shows_what_it_has(open_page: OpenPage, url: str) -> None:
    impossible = "&off=layer2.0,layer2.7,layer2.1&exchanged=layer1.2,layer2.1&digit=9999&seed=7"
    with open_page(url + "#view=live&pair=20&predict=same.same&epoch=500" + impossible) as page:
        page.wait_for_selector("html.live")
        assert page.locator("#answers .card").count() == 4
        assert page.locator(".chip.off").all_inner_texts() == ["2.1"]
        assert page.locator(".chip.exchanged").all_inner_texts() == ["1.2"]
        assert page.locator("#digit-value").inner_text().startswith("test digit 1 of 359: a ")
        assert page.locator("#epoch-value").inner_text() == "after epoch 13 of 13"
        assert page.locator("input[name=seed][value=mean]").is_checked()
        go_to(page, "#pair=20&off=layer3.0,layer3.1")
        assert page.locator(".chip.off").all_inner_texts() == ["3.1"]


def go_to(page: "Page", fragment: str) -> None:
    """Changes the address and waits until the page has been told."""
    page.evaluate(
        """(fragment) => new Promise((done) => {
            addEventListener("hashchange", done, { once: true });
            location.hash = fragment;
        })""",
        fragment,
    )


def test_a_link_to_a_chapter_keeps_what_is_shown(open_page: OpenPage, url: str) -> None:
    with open_page(url + "#view=live&pair=56&off=layer2.1") as page:
        page.wait_for_selector("html.live")
        page.locator(".skip").press("Enter")
        page.wait_for_url(re.compile("view=explore&pair=56&off=layer2.1"))
        assert page.evaluate("document.activeElement.id") == "explore-title"
        go_to(page, "#train")
        assert page.locator(".chip.off").all_inner_texts() == ["2.1"]
        page.wait_for_url(re.compile("#view=train&pair=56&off=layer2.1$"))  # to copy or to reload


def test_what_explains_the_pictures_is_printed_too(open_page: OpenPage, url: str) -> None:
    with open_page(url + REVEALED) as page:
        captions = page.locator("p.caption.needs-script")
        assert captions.count() > 0
        page.emulate_media(media="print")
        assert all(caption.is_visible() for caption in captions.all())
        assert not page.locator(".controls").first.is_visible()


def test_before_training_there_is_no_error(open_page: OpenPage, url: str) -> None:
    with open_page(url + "#predict=same.same&epoch=0") as page:
        assert page.locator("#epoch-value").inner_text() == "before training"
        assert page.locator("#curves .readout").count() == 0
        page.locator("#epoch").press("ArrowRight")
        assert page.locator("#epoch-value").inner_text() == "after epoch 1 of 13"
        assert page.locator("#curves .readout").count() == 3


def test_sliders_say_what_is_written_beside_them(open_page: OpenPage, url: str) -> None:
    with open_page(url + "#predict=same.same&epoch=7&digit=4&layers=4&lr=0.1") as page:
        page.wait_for_selector("html.live")
        page.locator("#lr").press("ArrowRight")
        said = page.eval_on_selector_all(
            "input[type=range]",
            """sliders => sliders.map((slider) => [
                slider.getAttribute("aria-valuetext"),
                document.getElementById(`${slider.id}-value`).textContent,
            ])""",
        )
    assert all(text == beside for text, beside in said)
    texts = [re.sub(r": a \d$", "", text) for text, _ in said]
    assert texts == ["after epoch 7 of 13", "test digit 5 of 359", "4 layers", "0.2"]


def test_what_is_read_aloud_is_new(open_page: OpenPage, url: str) -> None:
    with open_page(url + "#predict=same.same&epoch=12") as page:
        for card in (1, 2):
            page.wait_for_selector(f"#outcome .card:nth-child({card}) [data-computed]")
        page.evaluate(
            """() => {
                globalThis.regions = [];
                const observer = new MutationObserver((records) =>
                    regions.push(...records.map((record) => record.target.id)));
                const live = document.querySelectorAll("output, [role=status], [aria-live]");
                for (const region of live) observer.observe(region, { childList: true });
            }"""
        )
        page.locator("#epoch").press("ArrowLeft")
        page.get_by_role("button", name="Train", exact=True).click()
        page.get_by_text(re.compile(r"^epoch ([2-9]|\d\d+), \d+ epochs a second")).wait_for()
        page.get_by_role("button", name="Pause").click()
        text = page.locator("#announcement").text_content()
        assert text
        paused = re.match(r"Paused after epoch (\d+)", text)
        assert paused
        regions = page.evaluate("regions")
        assert set(regions) == {"announcement"}
        assert len(regions) <= 2 + int(paused[1]) // 500  # it begins, every 500 epochs, it pauses


def test_networks_answer_and_blocks_are_switched_off(open_page: OpenPage, url: str) -> None:
    with open_page(url + "#pair=20") as page:
        page.wait_for_selector("html.live")
        assert page.locator("#answers .card").count() == 4
        assert page.locator("#answers .guess").first.inner_text().isdecimal()
        chip = page.locator("[data-block='layer1.1']")
        chip.press("Enter")
        assert page.locator("[data-block='layer1.1']").get_attribute("aria-pressed") == "true"
        page.wait_for_url(re.compile("off=layer1.1"))
        assert page.evaluate("document.activeElement.dataset.block") == "layer1.1"
        assert page.locator("[data-block='layer2.0']").is_disabled()
        page.wait_for_selector("[data-network='resnet20'] button.number[data-item='one[1]']")
        page.get_by_label("exchanges two").check()
        for name in ("layer1.0", "layer3.1", "layer3.2"):
            page.locator(f"[data-block='{name}']").click()
        assert page.locator(".chip.exchanged").count() == 2
        page.wait_for_url(re.compile("exchanged=layer3.1,layer3.2"))


def test_a_digit_is_drawn_with_keys_and_pointer(open_page: OpenPage, url: str) -> None:
    with open_page(url) as page:
        page.wait_for_selector("html.live")
        pad = page.locator("#pad")
        pad.press("Delete")
        assert page.locator("#digit-value").inner_text() == "the pad is empty: draw"
        pad.press("ArrowRight")
        pad.press(" ")
        page.wait_for_url(re.compile("drawn=0{28}8"))
        box = pad.bounding_box()
        assert box
        page.mouse.move(box["x"] + 40, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 200, box["y"] + 200, steps=4)
        page.mouse.up()
        assert page.locator("#digit-value").inner_text() == "drawn by you"


def slowly(*values: object) -> Any:
    """Returns a parameter that runs with `-m slow` only."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("language", "scheme"),
    [("en", "light"), ("ko", "dark"), slowly("en", "dark"), slowly("ko", "light")],
)
def test_nothing_is_inaccessible(
    open_page: OpenPage, studies: Path, language: str, scheme: Any
) -> None:
    address = (studies / f"{language}.html").as_uri()
    with open_page(address + REVEALED, scheme=scheme, reduced_motion=True) as page:
        page.wait_for_selector("html.live")
        assert violations(page) == []
        page.locator("button.number").first.click()
        assert violations(page) == []


@pytest.mark.parametrize(
    ("language", "width"),
    [("en", 320), slowly("en", 390), ("en", 1280), ("ko", 320), ("ko", 390), slowly("ko", 1280)],
)
def test_nothing_scrolls_sideways(
    open_page: OpenPage, studies: Path, language: str, width: int
) -> None:
    address = (studies / f"{language}.html").as_uri()
    with open_page(address + REVEALED, width=width) as page:
        page.wait_for_selector("html.live")
        assert scrolls_sideways(page) == []


def test_the_page_is_read_without_scripts(open_page: OpenPage, url: str) -> None:
    with open_page(url, java_script_enabled=False) as page:
        assert page.locator("#curves svg").count() == 3
        assert page.locator("#picture-deep svg").is_visible()
        page.get_by_text("This browser does not run scripts.").wait_for()
        assert page.locator("#predict-form").is_hidden()
        assert page.locator("#start").is_hidden()


def test_without_workers_a_sentence_says_so(open_page: OpenPage, url: str) -> None:
    with open_page(url) as page:
        page.add_init_script("delete globalThis.Worker")
        page.reload()
        page.wait_for_selector("html.live")
        page.get_by_role("button", name="Train", exact=True).click()
        page.get_by_role("status").get_by_text("Training is not possible here").wait_for()
        assert "not possible here" in page.locator("#train-status").inner_text()
        assert page.locator("#curves").count() == 1


def test_reduced_motion_jumps_to_the_end(open_page: OpenPage, url: str) -> None:
    with open_page(url + "#predict=same.same&epoch=2", reduced_motion=True) as page:
        page.get_by_role("button", name="Play").click()
        assert page.locator("#epoch-value").inner_text() == "after epoch 13 of 13"


def test_everything_is_reached_with_the_keyboard(open_page: OpenPage, url: str) -> None:
    with open_page(url + "#predict=same.same") as page:
        page.wait_for_selector("html.live")
        unreachable = page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, summary, a[href]")]
                .filter((element) => element.checkVisibility() && !element.disabled)
                .filter((element) => element.tabIndex < 0)
                .map((element) => element.outerHTML)"""
        )
        assert unreachable == []
        page.locator("#epoch").press("ArrowLeft")
        assert page.locator("#epoch-value").inner_text() == "after epoch 12 of 13"


@pytest.mark.slow
def test_the_page_answers_soon_and_is_drawn_quickly(open_page: OpenPage, url: str) -> None:
    with open_page(url + "#predict=same.same") as page:
        page.wait_for_selector("html.live")
        milliseconds = page.evaluate(
            """() => {
                const slider = document.getElementById("epoch");
                const times = [];
                for (let i = 0; i < 60; i += 1) {
                    slider.value = i % 14;
                    const start = performance.now();
                    slider.dispatchEvent(new Event("input", { bubbles: true }));
                    document.body.offsetHeight;
                    times.push(performance.now() - start);
                }
                return times.sort((a, b) => a - b)[57];
            }"""
        )
        assert milliseconds < 50


@pytest.mark.slow
def test_a_spiral_shows_the_difference_of_the_shortcut(open_page: OpenPage, url: str) -> None:
    with open_page(url) as page:
        page.get_by_role("button", name="Train", exact=True).click()
        deadline, difference = time.monotonic() + 15, 0.0
        while difference < 15 and time.monotonic() < deadline:
            page.wait_for_timeout(200)
            difference = page.evaluate(
                """() => {
                    const [plain, residual] = ["plain", "residual"].map((name) =>
                        document.querySelector(`#spirals [data-network=${name}] [data-error]`));
                    return plain.dataset.error - residual.dataset.error;
                }"""
            )
        assert difference >= 15
        speed = re.search(r"(\d+) epochs a second", page.locator("#train-status").inner_text())
        assert speed
        assert int(speed[1]) >= 10
