"""Measures the structure of the source.

Usage: python benchmarks/structure.py [--list]

Prints how many functions are long or take many parameters, how many imports take a name that its
module does not offer, which class names occur twice, how often `dict[str, Any]` is written, and how
many parameters use an empty string for "not chosen". With --list it names the places.
"""

import argparse
import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "resnetkit"
MOST_LINES = 50
MOST_PARAMETERS = 6

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> Iterator[tuple[str, ast.Module, str]]:
    """Yields the path, the syntax tree and the text of every module."""
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        yield str(path.relative_to(SOURCE)), ast.parse(text), text


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def parameters(function: Function) -> list[ast.arg]:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    # ctx is the self of the functions of autograd.
    return [argument for argument in every if argument.arg not in ("self", "cls", "ctx")]


def lines_of_code(function: Function) -> int:
    """Returns the lines of a function without its docstring."""
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    lines = (function.end_lineno or 0) - function.lineno + 1
    return lines - ((first.end_lineno or 0) - first.lineno + 1 if is_docstring else 0)


def defaults(function: Function) -> Iterator[tuple[str, ast.expr]]:
    """Yields the parameters that have a default, with it."""
    positional = [*function.args.posonlyargs, *function.args.args]
    with_default = positional[len(positional) - len(function.args.defaults) :]
    yield from zip((a.arg for a in with_default), function.args.defaults, strict=True)
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if default is not None:
            yield argument.arg, default


def offered(tree: ast.Module) -> set[str] | None:
    """Returns the names in `__all__`; None for a module without one."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def places() -> dict[str, list[str]]:
    """Returns for each measure the places that count."""
    found: dict[str, list[str]] = defaultdict(list)
    classes: dict[str, list[str]] = defaultdict(list)
    trees = {path: tree for path, tree, _ in modules()}
    exports = {
        "resnetkit."
        + path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): offered(tree)
        for path, tree in trees.items()
    }
    for path, tree, text in modules():
        for function in functions(tree):
            where = f"{path}:{function.lineno} {function.name}"
            if (lines := lines_of_code(function)) > MOST_LINES:
                found[f"functions over {MOST_LINES} lines"].append(f"{where}: {lines}")
            count = len(parameters(function))
            if count > MOST_PARAMETERS and not path.startswith("cli/"):
                found[f"more than {MOST_PARAMETERS} parameters outside cli/"].append(
                    f"{where}: {count}"
                )
            for name, default in defaults(function):
                if isinstance(default, ast.Constant) and default.value == "":
                    found['parameters with the default ""'].append(f"{where}: {name}")
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(f"{path}:{node.lineno}")
            if isinstance(node, ast.ImportFrom) and (names := exports.get(node.module or "")):
                found["imports of a name that is not offered"] += [
                    f"{path}:{node.lineno} {alias.name}"
                    for alias in node.names
                    if alias.name not in names and f"{node.module}.{alias.name}" not in exports
                ]
        for match in re.finditer(r"dict\[str, Any\]", text):
            line = text.count("\n", 0, match.start()) + 1
            found["dict[str, Any]"].append(f"{path}:{line}")
    found["class names twice"] = [
        f"{name}: {', '.join(where)}" for name, where in classes.items() if len(where) > 1
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name the places")
    options = parser.parse_args()
    print(f"{sum(text.count(chr(10)) for _, _, text in modules()):6,} lines of source")
    for measure, where in places().items():
        print(f"{len(where):6,} {measure}")
        if options.list:
            print(*(f"         {place}" for place in where), sep="\n")


if __name__ == "__main__":
    main()
