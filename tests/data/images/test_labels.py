"""Names of classes, and which class of a network each of them means."""

import logging
import unicodedata
from pathlib import Path

import pytest
from torchvision.models import ResNet50_Weights

from resnetkit.data.datasets import open_for_evaluation
from resnetkit.data.images.labels import imagenet_wnids, in_order, is_imagenet, match_classes
from resnetkit.errors import DataError
from resnetkit.resizing import ImageFormat

WORDS = tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
# ImageNet's own list of words, as transformers has it, has two classes of one name.
OWN_WORDS = tuple("crane" if name == "crane bird" else name for name in WORDS)

# Pairs that many published lists agree on, from the first class to the last.
KNOWN_PAIRS = {
    "n01440764": (0, "tench"),
    "n01443537": (1, "goldfish"),
    "n01484850": (2, "great white shark"),
    "n02012849": (134, "crane bird"),
    "n02085620": (151, "Chihuahua"),
    "n02099601": (207, "golden retriever"),
    "n02123045": (281, "tabby"),
    "n03126707": (517, "crane"),
    "n03445777": (574, "golf ball"),
    "n03710637": (638, "maillot"),
    "n03710721": (639, "maillot tank suit"),
    "n03888257": (701, "parachute"),
    "n07753592": (954, "banana"),
    "n15075141": (999, "toilet tissue"),
}


def test_the_ids_of_imagenet_are_in_its_order() -> None:
    wnids = imagenet_wnids()
    assert len(set(wnids)) == 1000
    assert list(wnids) == sorted(wnids)  # which is how its classes are numbered
    for wnid, (index, words) in KNOWN_PAIRS.items():
        assert (wnids[index], WORDS[index]) == (wnid, words)


def test_a_network_of_imagenet_is_known_by_its_names() -> None:
    assert is_imagenet(WORDS)
    assert is_imagenet(OWN_WORDS)
    assert is_imagenet(imagenet_wnids())
    assert is_imagenet([f"{name}, another word" for name in WORDS])
    assert not is_imagenet(sorted(WORDS))
    assert not is_imagenet(WORDS[:999])
    assert not is_imagenet([str(n) for n in range(1000)])


MATCHED: dict[str, tuple[list[str], list[int]]] = {
    "some ids": (["n02099601", "n01440764"], [207, 0]),
    "ids with words": (["n02085620-Chihuahua", "n01440764 tench", "n03888257_x"], [151, 0, 701]),
    "words": (["golf ball", "tench"], [574, 0]),
    "ids and words": (["n02099601", "tench"], [207, 0]),
    "numbers": (["0", "10", "999"], [0, 10, 999]),
    "numbers with zeros": (["0000", "0207"], [0, 207]),
    "ids of two cranes": (["n02012849", "n03126707"], [134, 517]),
}


@pytest.mark.parametrize("case", MATCHED)
@pytest.mark.parametrize("names", [WORDS, OWN_WORDS], ids=["torchvision", "transformers"])
def test_classes_of_imagenet_have_several_names(case: str, names: tuple[str, ...]) -> None:
    labels, indices = MATCHED[case]
    assert match_classes(labels, names, "here") == dict(zip(labels, indices, strict=True))


def test_numbers_that_stand_for_classes_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "resnetkit"):
        match_classes(["0", "1"], WORDS, "here")
    assert "read as indices of ImageNet's classes, from 0: 0 is tench" in caplog.text


@pytest.mark.parametrize(
    ("labels", "strange"),
    [
        (["n00000000"], "n00000000"),
        (["1000"], "1000"),
        (["1", "tench"], "1"),  # a number beside words is no number of a class
        (["n014407640"], "n014407640"),
    ],
)
def test_what_is_no_class_of_imagenet_is_refused(labels: list[str], strange: str) -> None:
    with pytest.raises(DataError, match=f"not trained on: {strange} "):
        match_classes(labels, WORDS, "here")


def test_ids_and_numbers_mean_nothing_to_other_networks() -> None:
    for labels in (["n01440764"], ["0"]):
        with pytest.raises(DataError, match="not trained on"):
            match_classes(labels, ("cat", "dog"), "here")


def test_two_classes_of_one_name_are_not_chosen_from() -> None:
    with pytest.raises(DataError) as caught:
        match_classes(["crane", "tench"], OWN_WORDS, "photos")
    assert str(caught.value) == (
        "photos: 'crane' is the name of the network's classes 134 and 517. Name the folder by its"
        " WordNet id, n02012849 or n03126707."
    )
    with pytest.raises(DataError, match=r"classes 0 and 2\. Give the folders names"):
        match_classes(["bat"], ("bat", "cat", "bat"), "photos")
    assert match_classes(["cat"], ("bat", "cat", "bat"), "photos") == {"cat": 1}


def test_a_network_may_have_learned_names_in_another_form() -> None:
    forms = [unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")]
    for form in forms:
        assert match_classes([forms[0]], ("dog", f"{form} "), "here") == {forms[0]: 1}


def test_folders_are_numbered_as_timm_does() -> None:
    names = ["10", "9", "b2", "B10", "b1", "a", "_", "1a"]
    assert in_order(names, "natural") == ("1a", "9", "10", "_", "a", "b1", "b2", "B10")
    assert in_order(names, "sorted") == tuple(sorted(names))


@pytest.mark.parametrize("names", [["Cat", "cat"], ["01", "1"]])
def test_an_order_that_timm_does_not_have_is_refused(names: list[str]) -> None:
    with pytest.raises(DataError, match="is undefined in timm"):
        in_order(names, "natural")


def test_a_network_without_names_gets_the_order_of_its_library(tmp_path: Path) -> None:
    for number in range(11):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "x.jpg").touch()
    for order, expected in (("natural", range(11)), ("sorted", sorted(map(str, range(11))))):
        dataset = open_for_evaluation(
            str(tmp_path),
            ImageFormat(8, 1.0),
            class_names=(),
            class_order=order,  # type: ignore[arg-type]
        )
        assert dataset.class_names == tuple(map(str, expected))
        assert dataset.custom is not None
        for file, label in zip(dataset.custom.files, dataset.labels.tolist(), strict=True):
            assert dataset.class_names[label] == file.label
