"""The page of the server in a browser, with a real server and a trained network behind it."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from helpers.browser import OpenPage, scrolls_sideways, violations
from resnetkit.inference.predictor import Answer, Predictor, load_predictor
from resnetkit.serving.guard import Access
from resnetkit.serving.limits import Limits
from resnetkit.serving.model import prepare
from resnetkit.serving.server import ModelServer, bound_socket
from resnetkit.training.run_folder import Run

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

Serve = Callable[..., Any]


@pytest.fixture(scope="module")
def predictor(whole: Run) -> Predictor:
    return load_predictor(whole.folder, device="cpu", batch_size=8)


@pytest.fixture(scope="module")
def serve(predictor: Predictor) -> Serve:
    """Starts a server in a thread, as a context manager that gives its address."""
    model = prepare("digits", predictor, longest_batch_seconds=9)

    @contextmanager
    def running(access: Access | None = None, **limits: Any) -> Iterator[str]:
        with bound_socket("127.0.0.1", 0) as listening:
            server = ModelServer(lambda: model, access or Access(), Limits(**limits), "1.2.3")
            started = threading.Event()
            thread = threading.Thread(
                target=server.run, args=(listening,), kwargs={"started": started.set}
            )
            thread.start()
            assert started.wait(30)
            try:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
            finally:
                server.stop()
                thread.join(20)

    return running


@pytest.fixture(scope="module")
def address(serve: Serve) -> Iterator[str]:
    with serve() as url:
        yield url


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve pictures of coarse noise; the last one is turned by its metadata."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    paths = []
    for number in range(12):
        coarse = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((60, 40))
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 11 else 1
        paths.append(folder / f"photo {number:02}.jpg")
        picture.save(paths[-1], exif=exif)
    return paths


def all_answered(page: "Page") -> None:
    page.locator("#stop").wait_for(state="hidden")
    page.locator("#clear").wait_for(state="visible")


def shown_answers(page: "Page") -> list[list[tuple[str, str]]]:
    """Returns the classes and percentages of each card."""
    answers: list[list[list[str]]] = page.evaluate(
        """() => [...document.querySelectorAll(".photo[data-state=answered]")].map((card) =>
            [...card.querySelectorAll(".top, .ranked li")].map((row) =>
                [".class", ".share"].map((part) => row.querySelector(part).textContent)))"""
    )
    return [[(name, share) for name, share in answer] for answer in answers]


def percent(probability: float) -> str:
    return f"{100 * probability:.1f}\N{NO-BREAK SPACE}%"


def test_photos_get_the_answers_of_resnet_predict(
    open_page: OpenPage, address: str, photos: list[Path], predictor: Predictor, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"<html>not found</html>")
    with open_page(address, expected_errors="status of 422") as page:
        page.set_input_files("#files", [*photos[-5:], broken])
        all_answered(page)
        answers = predictor.predict(photos[-5:])
        assert shown_answers(page) == [
            [(guess.name, percent(guess.probability)) for guess in answer.ranked]
            for answer in answers
            if isinstance(answer, Answer)
        ]
        failed = page.locator(".photo[data-state=failed]").inner_text()
        assert "broken.jpg" in failed
        assert "It is an HTML page" in failed
        assert page.locator("#count").inner_text().startswith("5 photos answered in ")
        assert page.locator("#announcement").text_content() == page.locator("#count").inner_text()
        took = page.locator(".took").first.inner_text()
        assert [part for part in ("decoding", "waiting", "computing", "network") if part in took]
        assert violations(page) == []


@pytest.mark.parametrize(
    ("width", "scheme", "locale"),
    [
        (1280, "dark", "en-US"),
        pytest.param(390, "light", "ko-KR", marks=pytest.mark.slow),
        (320, "light", "ko-KR"),
    ],
)
def test_the_page_fits_and_has_no_barriers(
    open_page: OpenPage, address: str, photos: list[Path], width: int, scheme: Any, locale: str
) -> None:
    view = {"width": width, "scheme": scheme, "locale": locale}
    with open_page(address, reduced_motion=True, **view) as page:
        assert page.locator("html").get_attribute("lang") == locale[:2]
        assert (violations(page), scrolls_sideways(page)) == ([], [])
        page.set_input_files("#files", photos[:4])
        all_answered(page)
        assert (violations(page), scrolls_sideways(page)) == ([], [])
        page.locator(".look").first.click()
        page.locator("#view:not(.loading)").wait_for()
        assert (violations(page), scrolls_sideways(page)) == ([], [])
        assert page.evaluate("document.getAnimations().length") == 0


def test_where_the_network_looks(
    open_page: OpenPage, address: str, photos: list[Path], predictor: Predictor
) -> None:
    from resnetkit.inference.engines.torch import TorchEngine
    from resnetkit.probes.saliency import grad_cam

    pixels = predictor.transform.pixels(photos[0])
    with open_page(address) as page:
        page.set_input_files("#files", photos[:1])
        all_answered(page)
        page.locator(".look").focus()
        page.keyboard.press("Enter")
        page.locator("#view:not(.loading)[aria-label]:not([aria-label=''])").wait_for()
        assert png(page.locator("#seen").get_attribute("src")).tolist() == pixels[0].tolist()
        page.locator("[name=label]").first.focus()
        with page.expect_response("**/saliency*") as response:
            page.keyboard.press("ArrowDown")
        second = page.locator("#labels label").nth(1)
        assert second.locator("input").is_checked()
        label = int(second.locator("input").input_value())
        assert f"label={label}&" in response.value.url
        page.locator(f"#view[aria-label$='{predictor.class_name(label)}']").wait_for()
        engine = predictor.engine
        assert isinstance(engine, TorchEngine)
        import torch

        image = engine.network.normalization(torch.from_numpy(pixels)[None])[0]
        expected = grad_cam(engine.network.model, image, label).numpy() * 255
        shown = png(page.locator("#map").get_attribute("src"))
        assert np.abs(shown - expected).max() <= 1
        page.keyboard.press("Escape")
        assert not page.locator("#looking").is_visible()
        assert page.evaluate("document.activeElement.className") == "look"


def png(url: str | None) -> "np.ndarray[Any, Any]":
    import base64

    assert url is not None
    content = base64.b64decode(url.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"), dtype=np.float32)


def test_a_busy_server_is_asked_again(
    open_page: OpenPage, address: str, photos: list[Path]
) -> None:
    refusals = [1, 1]
    with open_page(address, expected_errors="status of 503") as page:

        def busy(route: Any) -> None:
            if refusals and refusals.pop():
                headers = {"Retry-After": "0.5"}
                route.fulfill(status=503, headers=headers, json={"error": "the server is busy."})
            else:
                route.continue_()

        page.route("**/predict*", busy)
        page.set_input_files("#files", photos)
        page.get_by_text("The server is busy. The next photo is sent in 500 ms.").first.wait_for()
        all_answered(page)
        assert len(shown_answers(page)) == len(photos)
        assert not page.locator("#pause").is_visible()


def test_a_server_with_a_token_is_given_it(
    open_page: OpenPage, serve: Serve, photos: list[Path]
) -> None:
    with (
        serve(Access(token="secret")) as url,
        open_page(url, expected_errors="status of 401") as page,
    ):
        page.set_input_files("#files", photos[:2])
        page.get_by_text("The server asks for a token: enter it above.").first.wait_for()
        assert page.evaluate("document.activeElement.id") == "token"
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("This is not the token of the server: correct it above.").first.wait_for()
        assert page.locator("#token").get_attribute("aria-invalid") == "true"
        page.locator("#token").fill("secret")
        page.keyboard.press("Enter")
        all_answered(page)
        assert len(shown_answers(page)) == 2


def test_photos_are_dropped_and_pasted(
    open_page: OpenPage, address: str, photos: list[Path]
) -> None:
    content = list(photos[0].read_bytes())
    with open_page(address) as page:
        for kind in ("drop", "paste"):
            page.evaluate(
                """([kind, content]) => {
                    const transfer = new DataTransfer();
                    const bytes = new Uint8Array(content);
                    transfer.items.add(new File([bytes], `${kind}.jpg`, { type: "image/jpeg" }));
                    const options = { bubbles: true, cancelable: true };
                    document.body.dispatchEvent(kind === "drop"
                        ? new DragEvent("drop", { ...options, dataTransfer: transfer })
                        : new ClipboardEvent("paste", { ...options, clipboardData: transfer }));
                }""",
                [kind, content],
            )
            page.locator(f".photo[data-state=answered] [title='{kind}.jpg']").wait_for()


def test_a_hundred_photos_are_answered(
    open_page: OpenPage, address: str, photos: list[Path]
) -> None:
    with open_page(address) as page:
        content = photos[0].read_bytes()
        files = [
            {"name": f"{number}.jpg", "mimeType": "image/jpeg", "buffer": content}
            for number in range(100)
        ]
        page.set_input_files("#files", files)
        all_answered(page)
        assert page.locator(".photo[data-state=answered]").count() == 100
