"""resnet serve: the answers of a trained network over HTTP."""

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

from cyclopts import Parameter

from resnetkit.cli.options import Device, Json, Precision, Variant
from resnetkit.cli.output import print_json, remark, say
from resnetkit.errors import UsageError

__all__ = ["serve"]

TOKEN_VARIABLE = "RESNET_SERVE_TOKEN"
MEBIBYTE = 2**20


def serve(
    network: Path,
    /,
    *,
    host: Annotated[
        str, Parameter(help="Address to listen on; 127.0.0.1 by default.")
    ] = "127.0.0.1",
    port: Annotated[int, Parameter(help="8000 by default; 0 chooses a free one.")] = 8000,
    name: Annotated[
        str | None, Parameter(help="Of the model in addresses; by default that of its folder.")
    ] = None,
    token_file: Annotated[
        Path | None,
        Parameter(
            help="A file with the token that requests must carry (Authorization: Bearer TOKEN)."
            f" The variable {TOKEN_VARIABLE} may hold it instead."
        ),
    ] = None,
    open: Annotated[  # noqa: A002  # the name of the option
        bool, Parameter(negative=(), help="Let everybody who reaches the address use the server.")
    ] = False,
    allow_host: Annotated[
        tuple[str, ...],
        Parameter(negative=(), help="A name that requests may be addressed to; may be repeated."),
    ] = (),
    allow_origin: Annotated[
        tuple[str, ...],
        Parameter(
            negative=(),
            help="A page that may use the server, such as https://example.com; may be repeated.",
        ),
    ] = (),
    max_batch: Annotated[int, Parameter(help="Largest batch that is tried; 32 by default.")] = 32,
    max_body: Annotated[int, Parameter(help="MiB of a request; 16 by default.")] = 16,
    max_megapixels: Annotated[int, Parameter(help="Of an image; 67 by default.")] = 67,
    max_wait: Annotated[
        float,
        Parameter(help="Seconds of predicted wait above which requests are refused; 1 by default."),
    ] = 1.0,
    timeout: Annotated[float, Parameter(help="Seconds to answer a request; 10 by default.")] = 10.0,
    precision: Precision | None = None,
    variant: Variant = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Serve a network over HTTP: predictions, features, metrics, and a page to try it.

    SIGTERM answers the requests in flight and ends within 10 seconds; SIGHUP loads the model again.
    Every address but that of this machine alone needs a token, or --open.

    Args:
        network: A run folder, its model folder, an exported network, or weights of another library.
    """
    server_module = imported_server()
    from importlib.metadata import version

    from resnetkit.data.images.decode import MOST_PIXELS
    from resnetkit.serving.guard import Access, allowed_host, allowed_origin
    from resnetkit.serving.limits import Limits
    from resnetkit.serving.model import ServedModel, default_name, is_name, load_checked, prepare

    for option, value in {
        "max-body": max_body,
        "max-megapixels": max_megapixels,
        "max-wait": max_wait,
        "timeout": timeout,
    }.items():
        if not 0 < value < 1e6:
            raise UsageError(f"--{option} {value}: expected a positive number.")
    if max_megapixels * 1_000_000 > MOST_PIXELS:
        raise UsageError(
            f"--max-megapixels {max_megapixels}: expected at most {MOST_PIXELS // 1_000_000}."
        )
    limits = server_module.fitting_limits(
        Limits(
            body_bytes=max_body * MEBIBYTE,
            pixels=max_megapixels * 1_000_000,
            wait_seconds=max_wait,
            answer_seconds=timeout,
        )
    )
    hosts = frozenset({"localhost", *map(allowed_host, allow_host)})
    origins = tuple(map(allowed_origin, allow_origin))
    access = server_module.check_access(
        host, Access(hosts, origins=origins, token=token_of(token_file)), is_open=open
    )
    model_name = default_name(network) if name is None else name
    if not is_name(model_name):
        raise UsageError(f"--name {model_name}: expected letters, digits, '-', '_' and '.'.")

    def load() -> ServedModel:
        predictor = load_checked(
            network, variant=variant, device=device, precision=precision, batch_size=max_batch
        )
        return prepare(model_name, predictor, longest_batch_seconds=max_wait / 2)

    with server_module.ending_in_time(), server_module.bound_socket(host, port) as listening:
        server = server_module.ModelServer(load, access, limits, version("resnetkit"))
        model = server.service.model
        engine = model.predictor.engine
        remark(
            f"{engine.origin}; {engine.name} in {engine.precision}, batches of {model.best_batch}"
        )
        address = listening.getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        url = f"http://{shown}:{address[1]}/"
        facts = {
            "url": url,
            "model": model_name,
            "engine": engine.name,
            "precision": engine.precision,
            "largest_batch": model.best_batch,
        }

        def started() -> None:
            if json:
                print_json(facts)
                sys.stdout.flush()  # who waits for it reads a pipe
            else:
                say(f"{url} serves {model_name}")

        server.run(listening, started=started)


def imported_server() -> ModuleType:
    """Imports the module of the server.

    Raises:
        UsageError: when one of its libraries is not installed.
    """
    try:
        from resnetkit.serving import server
    except ModuleNotFoundError as error:
        raise UsageError(
            f"'resnet serve' needs {error.name}, which is not installed:"
            " pip install 'resnetkit[serve]'."
        ) from None
    return server


def token_of(path: Path | None) -> str | None:
    """Returns the token of a file or of the environment; None if there is none.

    Raises:
        UsageError: when the file cannot be read, or holds no token.
    """
    from resnetkit.untrusted import read_bounded

    if path is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        token = read_bounded(path, 4096).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not ASCII text"
        raise UsageError(f"--token-file {path}: {reason}.") from error
    if not token:
        raise UsageError(f"--token-file {path}: it is empty.")
    return token
