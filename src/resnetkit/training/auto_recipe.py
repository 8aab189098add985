"""The recipe for custom images when the user asks for nothing in particular."""

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from resnetkit.data.images.decode import stored_size
from resnetkit.data.images.folder import read_images
from resnetkit.data.images.listing import ImageList
from resnetkit.data.images.split import split_images
from resnetkit.data.splits import Split
from resnetkit.errors import DataError
from resnetkit.models.summary import count
from resnetkit.models.zoo import Architecture
from resnetkit.training.checks import MOST_CHECKED
from resnetkit.training.finetune import spelled
from resnetkit.training.recipe import Recipe, load_recipe
from resnetkit.training.time_budget import (
    Candidate,
    EpochRange,
    Plan,
    StepCost,
    Workload,
    plan_training,
    scaled_costs,
)
from resnetkit.training.timings import Timings
from resnetkit.weights.load import load_network

__all__ = ["DEFAULT_MINUTES", "AutoRecipe", "AutoRequest", "auto_recipe", "duration_words"]

DEFAULT_MINUTES = 10.0
SIZES_READ = 200  # files whose size in pixels is read
SMALL_SIDE = 64  # pixels; smaller images keep their size
LEAST_SIDE = 32  # pixels that a network sees
PHOTO_SIDES = (224, 160, 128, 96, 64)  # pixels, for ResNet-18
SHOWN_SMALL, SHOWN_PHOTOS = 60_000, 9_000  # images in all epochs together that are enough
FEWEST_EPOCHS, MOST_EPOCHS = 3, 120
MOST_FROM_WEIGHTS = 60  # epochs of a training that starts from weights
ENOUGH_EPOCHS = (5, 30)  # the limits of what is enough
FEW_EPOCHS = 10  # a shorter training has a warm-up of one epoch
MANY_PHOTOS = 10_000
FEW_PHOTOS = (
    " A network trained from scratch learns little from so few photos: start from weights trained"
    " on a million images with --weights resnet18.IMAGENET1K_V1, after 'resnet weights fetch"
    " resnet18.IMAGENET1K_V1'."
)
UNBALANCED = 3.0  # times as many images in the largest class as in the smallest


@dataclass(frozen=True)
class AutoRequest:
    """What a user asks for who leaves the recipe for custom images to us.

    Attributes:
        data: a folder or table of images; see `read_images`.
        minutes: in which the training should end.
        weights: a run folder or file to start from; None to train from scratch.
        variant: v1 or v1.5, where the file of weights does not say.
        micro_batch: as in the recipe.
        changes: values of the recipe that the user has set, by dotted key.
    """

    data: Path
    minutes: float = DEFAULT_MINUTES
    weights: str | None = None
    variant: str | None = None
    micro_batch: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Any]:
        """Returns the values of the recipe that the request gives by options, by dotted key."""
        values = {
            "data.name": str(self.data),
            "model.weights": self.weights,
            "model.variant": self.variant,
            "micro_batch": self.micro_batch,
        }
        return {key: value for key, value in values.items() if value}

    @property
    def folder_name(self) -> str:
        """Returns the name of the run folder, which nothing measured changes.

        The same request has the same folder, whose recipe is taken when the request is repeated.
        """
        words = {"data": str(self.data.resolve()), "minutes": float(self.minutes)}
        canonical = {**asdict(self), **words}
        digest = hashlib.sha256(json.dumps(canonical, sort_keys=True, default=str).encode())
        seed = self.changes.get("seed", 0)
        return f"auto-{self.data.resolve().stem}-seed{seed}-{digest.hexdigest()[:8]}"


@dataclass(frozen=True)
class AutoRecipe:
    """The values chosen for a recipe, and the facts they were chosen by.

    Attributes:
        changes: values of the recipe `finetune`, by dotted key, with those of the request.
        count: of training images.
        side: median of their shorter sides, in pixels.
        imbalance: images of the largest class divided by those of the smallest.
        plan: what fits into the time.
        minutes: in which the training should end.
        epochs: how many there could be.
    """

    changes: dict[str, Any]
    count: int
    side: int
    imbalance: float
    plan: Plan
    minutes: float
    epochs: EpochRange

    @property
    def recipe(self) -> Recipe:
        return load_recipe("finetune", self.changes)

    def in_words(self) -> str:
        """Describes the recipe, and why it was chosen."""
        recipe = self.recipe
        size = recipe.data.image_size
        start = f" from {recipe.model.weights}" if recipe.model.weights else ""
        kept = (
            " Decoded images are cached on the disk (data.cache)."
            if recipe.data.cache != "none"
            else ""
        )
        balance = (
            f" The largest class has {self.imbalance:.1f} times as many images as the smallest, so"
            " the loss is weighted by class (class_weights=balanced)."
            if recipe.class_weights == "balanced"
            else ""
        )
        is_poor = self.count < MANY_PHOTOS and self.side >= SMALL_SIDE
        flips = (
            " and horizontal flips (data.augment.flip=none where left and right matter)"
            if recipe.data.augment.flip != "none"
            else ""
        )
        advice = FEW_PHOTOS if is_poor and not recipe.model.weights else ""
        return (
            f"{self.count:,} training images, about {self.side} pixels on the shorter side:"
            f" {recipe.model.name}{start} at {size}x{size} pixels, {recipe.length} in batches of"
            f" {recipe.batch_size}, random resized crops{flips}.{kept}{balance} --set changes any"
            f" of it.{advice}\n{self.time_in_words()}"
        )

    def time_in_words(self) -> str:
        """Describes the predicted time, and what the limit has decided."""
        plan, asked = self.plan, duration_words(60 * self.minutes)
        took = f"timed on this machine, this takes about {duration_words(plan.seconds)}"
        if not plan.fits:
            fixed = self.epochs.fewest == self.epochs.most
            kind = "with these settings" if fixed else "the shortest training that makes sense here"
            return f"{took}, {kind}: longer than the {asked} asked for."
        if plan.epochs == self.epochs.most and plan.passed_over is None:
            return f"{took}, within the {asked} asked for: more epochs would be of little use."
        if plan.passed_over is None:
            return f"{took} of the {asked} asked for."
        larger, epochs = plan.passed_over
        return (
            f"{took} of the {asked} asked for; {larger.network} at {larger.image_size} pixels would"
            f" leave time for {epochs} epochs, and {self.epochs.enough} are wanted."
        )


def auto_recipe(
    request: AutoRequest,
    timings: Timings,
    *,
    ranks: int = 1,
    overlaps: bool = False,
    seed: int = 0,
) -> AutoRecipe:
    """Chooses the values of a recipe by the images and by the time that a step takes.

    Args:
        request: what the user asks for.
        timings: of this machine.
        ranks: processes that train together.
        overlaps: whether images are read while the network computes: on a GPU.
        seed: of the random split.

    Raises:
        DataError: when there are no images to learn from.
        WeightsError: when the weights cannot be read.
        RecipeError: when the request has an impossible value.
    """
    images = split_images(read_images(request.data), seed=seed)
    splits = Counter(file.split for file in images.files)
    side, imbalance = typical_side(images), class_imbalance(images)
    base = base_values(request, images, side=side, imbalance=imbalance)
    draft = load_recipe("finetune", {**base, **request.changes})
    epochs = epoch_range(request, draft, splits["train"], is_small=side < SMALL_SIDE)
    read, fits_disk = timings.reading([file.path for file in images.files], draft)
    work = replace(
        workload(splits, draft),
        ranks=ranks,
        overlaps=overlaps,
        can_cache=fits_disk and "data.cache" not in request.changes,
    )
    costs = TimedCandidates(draft, images, timings)
    candidates = candidates_for(request, draft, side)
    while True:
        steps = costs.of(candidates)
        plan = plan_training(work, read, steps, epochs, seconds=60 * request.minutes)
        if plan.candidate in costs.measured:
            break
        costs.measure(plan.candidate)  # what was scaled is timed before it is chosen
    changes = {**base, **planned_values(plan, request), **request.changes}
    return AutoRecipe(changes, work.train, side, imbalance, plan, request.minutes, epochs)


def workload(splits: Mapping[Split | None, int], draft: Recipe) -> Workload:
    """Returns what a training on one CPU has to do.

    Args:
        splits: number of images of every split.
        draft: recipe with the batch size.
    """
    images, validation = sum(splits.values()), splits["validation"]
    return Workload(
        train=splits["train"],
        validation=validation,
        test=splits["test"] or validation,
        checked=images if images <= MOST_CHECKED else images - splits["train"],
        batch_size=draft.batch_size,
        must_cache=draft.data.cache == "disk",
    )


class TimedCandidates:
    """The seconds of candidates: timed, or scaled from one of the same network that was timed."""

    def __init__(self, draft: Recipe, images: ImageList, timings: Timings) -> None:
        self.draft = draft
        self.num_classes = len(images.class_names)
        self.timings = timings
        self.measured: dict[Candidate, StepCost] = {}

    def of(self, candidates: list[Candidate]) -> dict[Candidate, StepCost]:
        """Returns the seconds of candidates; of a network that is new, the smallest is timed."""
        for candidate in reversed(candidates):
            if candidate.network not in {other.network for other in self.measured}:
                self.measure(candidate)
        return scaled_costs(self.measured, candidates, self.multiply_adds)

    def measure(self, candidate: Candidate) -> None:
        """Times a candidate."""
        expected = None
        if any(other.network == candidate.network for other in self.measured):
            scaled = scaled_costs(self.measured, [candidate], self.multiply_adds)
            expected = scaled[candidate].per_image
        recipe = self.recipe(candidate)
        self.measured[candidate] = self.timings.step(
            self.architecture(candidate), recipe, expected=expected
        )

    def recipe(self, candidate: Candidate) -> Recipe:
        """Returns the draft with the network and the image size of a candidate."""
        model = self.draft.model.model_copy(update={"name": candidate.network})
        data = self.draft.data.model_copy(update={"image_size": candidate.image_size})
        return self.draft.model_copy(update={"model": model, "data": data})

    def architecture(self, candidate: Candidate) -> Architecture:
        """Returns the network of a candidate."""
        channels = self.draft.model.options.get("in_channels", 3)
        recipe = self.recipe(candidate)
        return recipe.architecture(num_classes=self.num_classes, in_channels=channels)

    def multiply_adds(self, candidate: Candidate) -> int:
        """Returns the multiply-adds of a candidate for one image."""
        return count(self.architecture(candidate), candidate.image_size).multiply_adds


def base_values(
    request: AutoRequest, images: ImageList, *, side: int, imbalance: float
) -> dict[str, Any]:
    """Returns the values that follow from the images alone, by dotted key."""
    trained_on = sum(file.split == "train" for file in images.files)
    values: dict[str, Any] = {
        **request.values,
        "data.augment.crop": "area",
        "data.augment.area": [0.35, 1.0],
        "data.augment.flip": "random",
        "batch_size": 32 if trained_on < 2_000 else 128,
    }
    if request.weights:
        values |= from_weights(request.weights, request.variant)
    elif side < SMALL_SIDE:
        values |= {"model.name": "resnet20", "data.image_size": max(LEAST_SIDE, side // 8 * 8)}
        values["data.crop_pct"] = 1.0  # small images have no margin to cut off
    else:
        values |= {"model.name": "resnet18", "data.image_size": SMALL_SIDE}
    if imbalance > UNBALANCED:
        values["class_weights"] = "balanced"
    return values


def candidates_for(request: AutoRequest, draft: Recipe, side: int) -> list[Candidate]:
    """Returns the networks and image sizes to choose from, the most desirable first.

    Args:
        request: whose changes fix the network, the image size, or both.
        draft: recipe with the network and image size of weights or of small images.
        side: median of the shorter sides of the images, in pixels.
    """
    name, size = draft.model.name, draft.data.image_size
    if request.weights:
        candidates = [Candidate(name, size)]
    elif side < SMALL_SIDE:
        candidates = [Candidate(name, size), Candidate(name, LEAST_SIDE)]
    else:
        candidates = [Candidate("resnet18", pixels) for pixels in PHOTO_SIDES if pixels <= side]
        candidates.append(Candidate("resnet20", LEAST_SIDE))
    fixed_name = name if "model.name" in request.changes else None
    fixed_size = size if "data.image_size" in request.changes else None
    fixed = [Candidate(fixed_name or c.network, fixed_size or c.image_size) for c in candidates]
    return list(dict.fromkeys(fixed))


def epoch_range(
    request: AutoRequest, draft: Recipe, trained_on: int, *, is_small: bool
) -> EpochRange:
    """Returns how many epochs the training may have; a length that the user has set is fixed."""
    if "length" in request.changes:
        steps_per_epoch = max(1, trained_on // draft.batch_size)
        epochs = -(-draft.length.steps(steps_per_epoch) // steps_per_epoch)
        return EpochRange(epochs, epochs, epochs)
    low, high = ENOUGH_EPOCHS
    shown = SHOWN_SMALL if is_small else SHOWN_PHOTOS
    enough = min(max(round(shown / trained_on), low), high)
    return EpochRange(FEWEST_EPOCHS, enough, MOST_FROM_WEIGHTS if request.weights else MOST_EPOCHS)


def planned_values(plan: Plan, request: AutoRequest) -> dict[str, Any]:
    """Returns the values that a plan decides, by dotted key."""
    values: dict[str, Any] = {
        "model.name": plan.candidate.network,
        "data.image_size": plan.candidate.image_size,
        "length": f"{plan.epochs} epochs",
        "finetune.patience": max(10, plan.epochs // 2),  # less would end before the rate has fallen
    }
    if plan.is_cached:
        values["data.cache"] = "disk"
    sets_warmup = any(key.partition(".")[0] in ("warmup", "length") for key in request.changes)
    if plan.epochs < FEW_EPOCHS and not sets_warmup:
        values["warmup.length"] = "1 epochs"
    return values


def duration_words(seconds: float) -> str:
    """Returns a duration in words."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}".replace(".0 ", " ")
    return f"{seconds:.0f} seconds"


def from_weights(weights: str, variant: str | None) -> dict[str, Any]:
    """Returns the values for fine-tuning: a tenth of the learning rate for pretrained layers."""
    network = load_network(Path(weights), variant=variant)
    name, options = spelled(network.architecture)
    return {
        "model.name": name,
        **({"model.options": options} if options else {}),
        "data.image_size": min(network.image_size),
        "data.crop_pct": network.crop_pct,
        "data.normalize": "channel" if network.normalization.is_per_pixel else "weights",
        "optimizer.lr": 0.02,
        "finetune.backbone_lr": 0.1,
    }


def typical_side(images: ImageList) -> int:
    """Returns the median of the shorter sides of a sample of the images, in pixels.

    Raises:
        DataError: when none of them can be read.
    """
    files = images.files[:: max(1, len(images.files) // SIZES_READ)]
    sizes = [size for file in files if (size := stored_size(file.path))]
    if not sizes:
        raise DataError(
            f"{images.root}: none of the images can be read. 'resnet data check {images.root}'"
            " names the reasons."
        )
    return round(statistics.median(min(size) for size in sizes))


def class_imbalance(images: ImageList) -> float:
    """Returns the training images of the largest class divided by those of the smallest."""
    counts = Counter(file.label for file in images.files if file.split == "train").values()
    return max(counts) / min(counts)
