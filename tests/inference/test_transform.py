"""What a network is shown of an image, against torchvision and against the image itself."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from resnetkit.errors import DataError
from resnetkit.inference.engine import Pixels
from resnetkit.inference.transform import EvalTransform
from resnetkit.training.run_folder import Run
from resnetkit.weights.conventions import IMAGENET_NORMALIZATION
from resnetkit.weights.export import export_weights
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork

Draw = Callable[..., Image.Image]
MakeNetwork = Callable[..., TrainedNetwork]
SIZES = [(40, 30), (30, 40), (24, 24), (27, 27), (101, 67), (25, 50), (8, 5)]


def pixels_of(image: Image.Image) -> Pixels:
    return np.array(image).reshape(*image.size[::-1], -1).transpose(2, 0, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_of_photos_see_torchvisions_resize_and_center_crop(
    make_network: MakeNetwork, draw: Draw, size: tuple[int, int], channels: int
) -> None:
    transform = EvalTransform.of(make_network(data="my/photos", channels=channels))
    image = draw(1, size)
    seen = image if channels == 3 else image.convert("L")
    theirs = v2.CenterCrop(24)(v2.Resize(round(24 / 0.875))(seen))
    assert np.array_equal(transform.pixels(image), pixels_of(theirs))


@pytest.mark.parametrize("channels", [1, 3])
def test_networks_of_a_named_set_see_an_image_of_its_size_untouched(
    make_network: MakeNetwork, draw: Draw, channels: int
) -> None:
    transform = EvalTransform.of(make_network(crop_pct=1.0, channels=channels, size=(32, 32)))
    image = draw(2, (32, 32))
    seen = image if channels == 3 else image.convert("L")
    assert np.array_equal(transform.pixels(image), pixels_of(seen))


@pytest.mark.parametrize("size", SIZES)
def test_networks_of_a_named_set_see_the_whole_shorter_side(
    make_network: MakeNetwork, draw: Draw, size: tuple[int, int]
) -> None:
    transform = EvalTransform.of(make_network(crop_pct=1.0))
    image = draw(3, size)
    theirs = v2.CenterCrop(24)(v2.Resize(24)(image))
    assert np.array_equal(transform.pixels(image), pixels_of(theirs))


def test_the_transform_follows_that_of_the_network(
    make_network: MakeNetwork, whole: Run, tmp_path: Path
) -> None:
    """All of a named set's images; of custom photos and where weights do not say, the center."""
    assert EvalTransform.of(load_network(whole.folder)).crop_pct == 1.0
    narrow = {"widths": (8, 8, 8, 8)}
    for form, name, size, crop_pct, options in (
        ("akamaster", "resnet20", 32, 1.0, {"padding": "split"}),
        ("torchvision", "resnet18", 224, 0.875, narrow),
        ("timm", "resnet18", 32, 0.8, {}),  # which names its architecture
        ("resnetkit", "resnet18", 32, 0.95, narrow),
    ):
        constants = {"normalization": IMAGENET_NORMALIZATION}
        network = make_network(name=name, crop_pct=crop_pct, size=(size, size), data="", **options)
        export_weights(replace(network, **constants), tmp_path / form, form)
        assert EvalTransform.of(load_network(tmp_path / form)).crop_pct == crop_pct, form


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_a_file_its_content_and_the_decoded_image_are_the_same(
    make_network: MakeNetwork, draw: Draw, tmp_path: Path, kind: str
) -> None:
    transform, path = EvalTransform.of(make_network()), tmp_path / f"one.{kind}"
    draw(4, (30, 26)).save(path)  # so small that a JPEG is decoded in full
    with Image.open(path) as image:
        expected = transform.pixels(image)
    assert expected.shape == (3, 24, 24)
    assert expected.dtype == np.uint8
    assert np.array_equal(transform.pixels(path), expected)
    assert np.array_equal(transform.pixels(str(path)), expected)
    assert np.array_equal(transform.pixels(path.read_bytes()), expected)


def test_decoded_images_are_turned_upright_and_laid_on_white(
    make_network: MakeNetwork, draw: Draw, tmp_path: Path
) -> None:
    transform, image = EvalTransform.of(make_network()), draw(5)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: to be turned by 90 degrees to the right
    image.save(tmp_path / "side.png", exif=exif)
    turned = image.transpose(Image.Transpose.ROTATE_270)
    with Image.open(tmp_path / "side.png") as stored:
        for picture in (tmp_path / "side.png", stored):
            assert np.array_equal(transform.pixels(picture), transform.pixels(turned))
    clear = Image.new("RGBA", (30, 30), (255, 0, 0, 0))
    assert (transform.pixels(clear) == 255).all()


@pytest.mark.parametrize("order", ["<u2", ">u2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_decoded_images_of_16_bits_keep_their_grays(
    make_network: MakeNetwork, order: str, channels: int
) -> None:
    transform = EvalTransform.of(make_network(channels=channels))
    values = np.random.default_rng(0).integers(0, 2**16, (30, 26))
    content = BytesIO(b"P5\n26 30\n65535\n" + values.astype(">u2").tobytes())
    expected = transform.pixels(Image.fromarray((values >> 8).astype(np.uint8)))
    assert np.array_equal(transform.pixels(Image.fromarray(values.astype(order))), expected)
    assert np.array_equal(transform.pixels(Image.open(content)), expected)  # of mode I
    assert np.array_equal(transform.pixels(content.getvalue()), expected)


def test_a_large_jpeg_is_decoded_as_photos_are(make_network: MakeNetwork, draw: Draw) -> None:
    content = BytesIO()
    draw(6, (600, 400)).save(content, "JPEG")
    with Image.open(content) as image:
        image.draft(None, (41, 27))  # 27 is 24 of 0.875
        theirs = v2.CenterCrop(24)(v2.Resize(27)(image.convert("RGB")))
    assert image.size == (75, 50)
    assert np.array_equal(
        EvalTransform.of(make_network()).pixels(content.getvalue()), pixels_of(theirs)
    )


def test_networks_of_oblong_images_see_the_middle(make_network: MakeNetwork, draw: Draw) -> None:
    transform = EvalTransform.of(make_network(crop_pct=1.0, size=(10, 20)))
    image = draw(7, (40, 30))
    seen = transform.pixels(image)
    # As small as covers both sides: 20x15, of which the middle 10 rows are shown.
    theirs = image.resize((20, 15), Image.Resampling.BILINEAR).crop((0, 2, 20, 12))
    assert seen.shape == (3, 10, 20)
    assert np.array_equal(seen, pixels_of(theirs))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (b"", "the image: the file is empty"),
        (b"no image", "the image: it is text"),
        (Path("none.jpg"), "none.jpg: it cannot be read: No such file"),
        ("none.jpg", "none.jpg: it cannot be read: No such file"),
        (Image.new("F", (9, 9)), "the image: it cannot be decoded: its values have 32 bits"),
        (Image.new("RGB", (0, 0)), "the image: it cannot be decoded"),
    ],
)
def test_a_bad_image_is_refused(
    make_network: MakeNetwork, picture: Path | str | bytes | Image.Image, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        EvalTransform.of(make_network()).pixels(picture)
    assert str(caught.value).startswith(message)


def test_images_of_four_channels_are_in_no_file(make_network: MakeNetwork) -> None:
    architecture = make_network(channels=3).architecture.with_options(in_channels=4)
    network = make_network()
    four = type(network)(**{**network.__dict__, "architecture": architecture})
    with pytest.raises(DataError, match="takes images with 4 channels, but image files have 3"):
        EvalTransform.of(four)
