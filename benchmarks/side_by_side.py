"""What the benchmarks share: measurements in turns, calibration, statistics and Markdown.

A comparison has two sides, each a command that prints one measurement. Each measurement is a fresh
process and the sides take turns, so that a machine whose speed drifts treats both alike. Between
the measurements this process calibrates: it times large matrix products in the precision that
networks compute in on this processor. That rate is the limit of a training, and it shows whether
the machine was quiet.
"""

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

DRIFT = 0.10  # of the rate of products, above which a row is marked
BUSY = 0.90  # of the processor time that products could use, below which a row is marked
CALIBRATION_SECONDS = 0.5
PRODUCT_SIZE = 2048

AVX2_ONLY = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions, products in bfloat16
    "ATEN_CPU_CAPABILITY": "avx2",  # kernels of torch, vectors of compiled ones
    "TORCHINDUCTOR_CPP_MARCH": "x86-64-v3",  # what the compiler may use for them
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",  # products in float32 on Intel; on AMD MKL uses AVX2 anyway
}
FEATURES = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@dataclass(frozen=True)
class Measurement:
    """What one process measured.

    Attributes:
        images_per_second: after the warm-up.
        steps: that were timed.
        warm_up_seconds: of the steps before, compilation included.
        fetching: fraction of the time that was spent on getting the images of a step.
        peak_gib: memory of the process, without its workers.
        gflop_per_image: that the network computes; 0 if products do not limit the work.
    """

    images_per_second: float
    steps: int
    warm_up_seconds: float
    fetching: float
    peak_gib: float
    gflop_per_image: float


@dataclass(frozen=True)
class Calibration:
    """Large matrix products between two measurements.

    Attributes:
        gflops: their rate.
        granted: fraction of the processor time of all threads that this process got.
    """

    gflops: float
    granted: float


@dataclass(frozen=True)
class Comparison:
    """Two ways to do the same work.

    Attributes:
        title: what is compared with what.
        ours: command after the interpreter; it takes --seconds and prints a measurement.
        peer: likewise.
    """

    title: str
    ours: tuple[str, ...]
    peer: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """One measurement of each side, and the calibrations before, between and after them."""

    ours: Measurement
    peer: Measurement
    calibrations: tuple[Calibration, ...]


@dataclass(frozen=True)
class Plan:
    """How often and how long is measured.

    Attributes:
        rounds: pairs of processes.
        seconds: of each measurement, after its warm-up.
    """

    rounds: int
    seconds: float


class MeasurementFailed(Exception):
    """A process that was measured failed or did not end in time."""


def measured(
    fetch: Callable[[], Any], compute: Callable[[Any], object], images: int, **options: Any
) -> Measurement:
    """Measures steps until the time is over, two at least.

    Args:
        fetch: returns the images of a step.
        compute: what is done with them.
        images: of a step.
        options: `seconds` to measure, `warm_up` steps before, and `gflop_per_image`.
    """
    began = time.perf_counter()
    for _ in range(options["warm_up"]):
        compute(fetch())
    warm = time.perf_counter()
    steps, fetching, now = 0, 0.0, warm
    while steps < 2 or now - warm < options["seconds"]:
        step_images = fetch()
        fetching += time.perf_counter() - now
        compute(step_images)
        now = time.perf_counter()
        steps += 1
    return Measurement(
        images_per_second=steps * images / (now - warm),
        steps=steps,
        warm_up_seconds=warm - began,
        fetching=fetching / (now - warm),
        peak_gib=peak_kib() / 2**20,
        gflop_per_image=options.get("gflop_per_image", 0.0),
    )


def peak_kib() -> int:
    """Returns the peak memory of this process.

    Linux says it in a file; its `getrusage` counts the process that started this one too.
    """
    status = Path("/proc/self/status")
    match = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(match[1]) if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_fresh_process(command: Sequence[str], seconds: float) -> Measurement:
    """Runs one measurement in a process of its own.

    Raises:
        MeasurementFailed: when it fails, or takes far longer than it should.
    """
    words = [sys.executable, *command, "--seconds", str(seconds)]
    deadline = 120 + 10 * seconds
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=deadline)
    except subprocess.TimeoutExpired:
        raise MeasurementFailed(f"did not end within {deadline:.0f} s") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        raise MeasurementFailed(reason[-1]) from None
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def print_measurement(measurement: Measurement) -> None:
    print(json.dumps(asdict(measurement)))


def precision() -> str:
    """Returns what networks compute in here: float32, or bfloat16 with instructions for it."""
    import torch

    from resnetkit.runtime.precision import choose_precision

    return choose_precision("auto", torch.device("cpu")).name


def calibrate() -> Calibration:
    """Measures large matrix products for half a second or two products, whichever is longer."""
    import torch

    generator = torch.Generator().manual_seed(0)
    shape = (PRODUCT_SIZE, PRODUCT_SIZE)
    factor = torch.randn(shape, generator=generator).to(getattr(torch, precision()))
    factor @ factor
    began, cpu_began = time.perf_counter(), time.process_time()
    products, seconds = 0, 0.0
    while products < 2 or seconds < CALIBRATION_SECONDS:
        factor @ factor
        products += 1
        seconds = time.perf_counter() - began
    granted = (time.process_time() - cpu_began) / (seconds * torch.get_num_threads())
    return Calibration(products * 2 * PRODUCT_SIZE**3 / seconds / 1e9, granted)


def take_turns(comparison: Comparison, plan: Plan) -> Iterator[Pair]:
    """Yields pairs of measurements; the side that comes first alternates.

    Raises:
        MeasurementFailed: when a side fails.
    """
    before = calibrate()
    for number in range(plan.rounds):
        commands = {"ours": comparison.ours, "peer": comparison.peer}
        calibrations, sides = [before], {}
        for side in commands if number % 2 == 0 else reversed(commands):
            sides[side] = in_fresh_process(commands[side], plan.seconds)
            calibrations.append(calibrate())
        before = calibrations[-1]
        yield Pair(calibrations=tuple(calibrations), **sides)


def spread(values: Sequence[float], digits: int) -> str:
    """Returns the median with the lowest and the highest value."""
    low, middle, high = (
        f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} ({low} to {high})"


def marks(calibrations: Sequence[Calibration]) -> str:
    """Returns why the figures between these calibrations cannot be trusted; `quiet` if they can."""
    rates = [calibration.gflops for calibration in calibrations]
    drift = 1 - min(rates) / max(rates)
    granted = min(calibration.granted for calibration in calibrations)
    reasons = [f"drifted by {drift:.0%}"] if drift > DRIFT else []
    reasons += [f"busy: got {granted:.0%} of the processors"] if granted < BUSY else []
    return "**" + ", ".join(reasons) + "**" if reasons else "quiet"


def row(comparison: Comparison, pairs: Sequence[Pair]) -> dict[str, str]:
    """Returns the cells of a comparison by column.

    The ratio is that of each pair, and the limit is the median rate of the calibrations.
    """
    ours, peers = [pair.ours for pair in pairs], [pair.peer for pair in pairs]
    rates = [side.images_per_second for side in ours]
    peer_rates = [side.images_per_second for side in peers]
    ratios = [rate / peer_rate for rate, peer_rate in zip(rates, peer_rates, strict=True)]
    calibrations = [calibration for pair in pairs for calibration in pair.calibrations]
    limits = [calibration.gflops for calibration in calibrations]
    gflops = statistics.median(rates) * ours[0].gflop_per_image

    def both(digits: int, summary: Callable[[list[float]], float], name: str) -> str:
        values = (summary([getattr(side, name) for side in sides]) for sides in (ours, peers))
        return " / ".join(f"{value:.{digits}f}" for value in values)

    return {
        "comparison": comparison.title,
        "ours, images/s": spread(rates, 1),
        "peer, images/s": spread(peer_rates, 1),
        "ratio": spread(ratios, 2),
        "n": str(len(pairs)),
        "steps": both(0, min, "steps"),
        "% of limit": f"{100 * gflops / statistics.median(limits):.0f}" if gflops else "",
        "fetching": both(2, statistics.median, "fetching"),
        "warm-up, s": both(1, max, "warm_up_seconds"),
        "peak, GiB": both(2, max, "peak_gib"),
        "products, GFLOP/s": spread(limits, 0),
        "machine": marks(calibrations),
    }


def failed_row(comparison: Comparison, reason: str) -> dict[str, str]:
    """Returns the row of a comparison that could not be measured."""
    return {"comparison": comparison.title, "machine": f"**failed: {reason.replace('|', '/')}**"}


COLUMNS = (
    *("comparison", "ours, images/s", "peer, images/s", "ratio", "n", "steps", "% of limit"),
    *("fetching", "warm-up, s", "peak, GiB", "products, GFLOP/s", "machine"),
)


def table(rows: Sequence[dict[str, str]]) -> str:
    """Returns rows as a Markdown table; a cell that a row lacks stays empty."""
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    lines += [[cells.get(column, "") for column in COLUMNS] for cells in rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


LEGEND = f"""\
Medians with the lowest and the highest of n pairs of fresh processes that took turns; a ratio is
that of a pair. Of cells with two values the first is ours. Steps: the fewest of a process.
% of limit: what our step computes, of the rate of large matrix products, which were timed before
and after each measurement. Fetching: fraction of a step spent on getting its images. Warm-up: the
longest of a process; the first compiles kernels. Peak: of a process, without its workers.
A machine that drifted changed the rate of the products by more than {DRIFT:.0%} during a
comparison; a busy one gave them less than {BUSY:.0%} of its processors. Figures of such rows are
meaningless.
"""


def features() -> list[str]:
    """Returns the processor's instructions that torch and the environment let networks use."""
    from resnetkit.runtime.precision import cpu_capabilities

    capabilities = cpu_capabilities()
    return [name for name in FEATURES if capabilities.get(name)]


def header(plan: Plan) -> str:
    """Returns the machine, the software and the plan, as Markdown."""
    import torch
    import torchvision

    from resnetkit.runtime.processor import processor_name
    from resnetkit.runtime.resources import usable_processors

    environment = [f"`{name}={os.environ[name]}`" for name in AVX2_ONLY if name in os.environ]
    lines = (
        ("Date", date.today().isoformat()),
        ("Processor", f"{processor_name()}, {usable_processors()} cores"),
        ("Features", ", ".join(features()) or "none of " + ", ".join(FEATURES)),
        ("Kernels of torch", torch.backends.cpu.get_cpu_capability()),
        ("Environment", " ".join(environment) or "no limits on instructions"),
        ("Our networks compute in", f"{precision()} (the peer's in float32)"),
        ("Threads", str(torch.get_num_threads())),
        (
            "Versions",
            f"torch {torch.__version__}, torchvision {torchvision.__version__},"
            f" Python {platform.python_version()}",
        ),
        ("Measured", f"n = {plan.rounds} pairs, {plan.seconds:g} s a measurement"),
    )
    return "".join(f"- {name}: {value}\n" for name, value in lines)


def file_name() -> str:
    """Returns the name of a file of results: processor, its latest features and date."""
    from resnetkit.runtime.processor import processor_name
    from resnetkit.runtime.resources import usable_processors

    latest = (features() or ["none"])[-1].replace("_", "-")
    processor = re.sub(r"[^a-z0-9]+", "-", processor_name().lower()).strip("-")
    return f"{processor}_{usable_processors()}-cores_{latest}_{date.today()}.md"


def results(comparisons: Sequence[Comparison], plan: Plan) -> str:
    """Runs comparisons and returns header and table; progress goes to stderr."""
    rows = []
    for comparison in comparisons:
        began = time.perf_counter()
        try:
            rows.append(row(comparison, list(take_turns(comparison, plan))))
        except MeasurementFailed as error:
            rows.append(failed_row(comparison, str(error)))
        ratio = rows[-1].get("ratio", "none")
        seconds = time.perf_counter() - began
        print(
            f"{comparison.title}: ratio {ratio}, {rows[-1]['machine']}, {seconds:.0f} s",
            file=sys.stderr,
        )
    return f"{header(plan)}\n{table(rows)}\n{LEGEND}"


def script(path: str) -> str:
    """Returns the path of a script next to this one."""
    return str(Path(__file__).with_name(path))
