"""The tensors of a Keras file, read in a separate process.

The library that reads HDF5 is not made for hostile files: some changed bytes make it loop forever.
A process can be stopped, but a call cannot. So this module is also a program:
`python -m resnetkit.weights.hdf5 FILE` writes the tensors as safetensors to its output.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from resnetkit.errors import UsageError, WeightsError

if TYPE_CHECKING:
    import numpy

__all__ = ["check_installed", "read_layers"]

SECONDS = 20.0  # to start, and to look through the file
BYTES_PER_SECOND = 10e6  # of a slow disk
REFUSED = 3  # exit code: stderr says why
LARGEST_ATTRIBUTE = 10_000  # names
SPARE_BYTES = 2**29  # of memory that reading may take next to copies of what the file holds


def check_installed() -> None:
    """Checks that h5py is installed.

    Raises:
        UsageError: if it is not.
    """
    if sys.modules.get("h5py", ...) is None or importlib.util.find_spec("h5py") is None:
        raise UsageError(
            "Keras files need h5py, which is not installed: pip install 'resnetkit[keras]'."
        )


def read_layers(path: Path) -> bytes:
    """Returns the weights of a Keras file as safetensors, named `layer/parameter`.

    Raises:
        WeightsError: if it is corrupt, or not in the layout of `keras.applications`.
        UsageError: if h5py is missing.
    """
    check_installed()
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            # -P: nothing in the folder where the command is called is imported.
            [sys.executable, "-P", "-m", "resnetkit.weights.hdf5", str(path.resolve())],
            capture_output=True,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS + path.stat().st_size / BYTES_PER_SECOND,
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(
            f"{path} is corrupt: reading it does not end. Download it again."
        ) from None
    if done.returncode == REFUSED:
        raise WeightsError(f"{path} {done.stderr.decode(errors='replace').strip()}")
    if done.returncode:
        raise WeightsError(f"{path} is corrupt or not a file of weights. Download it again.")
    return done.stdout


def main(path: str) -> None:
    """Writes the weights of a file to stdout."""
    import h5py
    import safetensors.numpy

    limit_memory(SPARE_BYTES + 8 * os.path.getsize(path))
    with h5py.File(path, "r") as file:
        root = member(file, "model_weights") if "model_weights" in file else file
        if "layer_names" not in root.attrs and "layer_names0" not in root.attrs:
            refuse(
                "names no layers, as files of keras.applications do: save_weights of Keras 3 writes"
                " other files. Write it with model.save('NAME.h5'), or fetch the published file."
            )
        arrays: dict[str, numpy.ndarray[Any, Any]] = {}
        remaining = os.path.getsize(path)
        for layer in names(root, "layer_names"):
            group = member(root, layer)
            for weight in names(group, "weight_names"):
                name = f"{layer}/{weight.rpartition('/')[2].removesuffix(':0')}"
                if name in arrays:
                    refuse(f"holds '{name}' twice.")
                dataset = member(group, weight)
                arrays[name] = values(dataset, name, remaining)
                remaining -= dataset.nbytes  # which several names may lead to
    if not arrays:
        refuse("holds no weights.")
    sys.stdout.buffer.write(safetensors.numpy.save(arrays))


def limit_memory(more_bytes: int) -> None:
    """Limits the memory of this process, if the system counts it."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    most_bytes = pages * resource.getpagesize() + more_bytes
    hardest = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hardest == resource.RLIM_INFINITY or most_bytes < hardest:
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, hardest))


def names(group: Any, attribute: str) -> list[str]:
    """Returns the names in an attribute; long lists are spread over several attributes."""
    keys = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(keys)}" in group.attrs:
        keys.append(f"{attribute}{len(keys)}")
    values: list[str] = []
    for key in keys:
        if group.attrs.get_id(key).get_space().get_simple_extent_npoints() > LARGEST_ATTRIBUTE:
            refuse(f"has too many names in '{key}'.")
        values += [
            name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs[key]
        ]
    return values


def member(group: Any, path: str) -> Any:
    """Returns the object at a path in a group; nothing in another file is opened."""
    import h5py

    for name in filter(None, path.split("/")):
        if not isinstance(group, h5py.Group) or name not in group:
            refuse(f"lacks '{path}'.")
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            refuse(f"only links to '{path}', which is elsewhere.")
        group = group[name]
    return group


def values(dataset: Any, name: str, most_bytes: int) -> "numpy.ndarray[Any, Any]":
    """Returns the numbers of a dataset, all of which must be in the file itself."""
    import h5py
    import numpy

    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "f" or dataset.shape is None:
        refuse(f"holds no numbers in '{name}'.")
    if dataset.external or dataset.is_virtual or dataset.nbytes > most_bytes:
        refuse(f"does not hold all of '{name}'.")
    return numpy.asarray(dataset[()], dtype="<f4").reshape(dataset.shape)


def refuse(message: str) -> NoReturn:
    """Ends the process with the rest of an error message that begins with the path."""
    print(message, file=sys.stderr)
    raise SystemExit(REFUSED)


if __name__ == "__main__":
    main(sys.argv[1])
