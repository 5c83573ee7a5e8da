"""The house: its rooms, floor by floor, from what the code says of itself.

    python scripts/house.py           # prints the tree that stands in CONTRIBUTING.md
    python scripts/house.py --write   # writes it there
    python scripts/house.py --check   # 1 if an import goes against the floors, or the tree there is another

A room imports only rooms on lower floors; within a room there are no circles.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "modeling": 1,
    "jobs": 2,
    "reports": 2,
    "faithfulness": 2,
    "methods": 3,
    "data": 3,
    "photos": 3,
    "localization": 4,
    "training": 4,
    "explaining": 5,
    "evaluating": 5,
    "demo": 5,
    "publishing": 6,
    "app": 6,
    "": 7,  # hf_explain/ itself
}
BEGIN, END = "<!-- written by scripts/house.py -->\n", "<!-- end -->"


def room_of(module: str) -> str:
    """ "explaining" of "hf_explain.explaining.rows", "" of "hf_explain.cli"."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else ""


def modules() -> dict[str, Path]:
    """Name -> file of everything in the package, `modeling` through its link."""
    found = {}
    for path in [*(ROOT / "hf_explain").rglob("*.py"), *(ROOT / "modeling").glob("*.py")]:
        parts = [part for part in path.relative_to(ROOT).with_suffix("").parts if part != "__init__"]
        found[".".join(parts if parts[0] == "hf_explain" else ["hf_explain", *parts])] = path
    return found


def imports(module: str, path: Path, known) -> Iterator[str]:
    """The modules of the package that a module imports, wherever in it."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            if source.split(".")[0] == "hf_explain":
                for alias in node.names:
                    yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in known else source


def arrows() -> dict[str, set[str]]:
    """module -> what it imports of the package."""
    known = modules()
    return {name: set(imports(name, path, known)) - {name} for name, path in known.items()}


def against_the_floors(found: dict[str, set[str]]) -> list[str]:
    """Imports of a room on the same floor or above, in words."""
    wrong = []
    for module, taken in sorted(found.items()):
        here = room_of(module)
        for other in sorted(taken):
            there = room_of(other)
            if here != there and FLOORS[there] >= FLOORS[here] and other != "hf_explain.version":
                wrong.append(f"{module} (floor {FLOORS[here]}) imports {other} (floor {FLOORS[there]})")
    return wrong


def circles(found: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, through however many others; what a package's door re-exports aside."""
    graph = {m: {t for t in taken if t in found and t != "hf_explain"} for m, taken in found.items()}
    done: set[str] = set()
    wrong = []

    def visit(module: str, trail: list[str]) -> None:
        if module in trail:
            wrong.append(" -> ".join([*trail[trail.index(module) :], module]))
        elif module not in done:
            for other in sorted(graph[module]):
                visit(other, [*trail, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return wrong


def tree() -> str:
    """Every room with the first line of its docstring, from the ground up."""
    rows = []
    for room, floor in FLOORS.items():
        if not room:
            continue
        folder = ROOT / ("modeling" if room == "modeling" else f"hf_explain/{room}")
        first = (ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "").split("\n")[0]
        rows.append(f"{room + '/':15}{floor}  {first}")
    return "```\n" + "\n".join(rows) + "\n```\n"


def main(argv: list[str]) -> int:
    page = ROOT / "CONTRIBUTING.md"
    text = page.read_text()
    before, rest = text.split(BEGIN)
    wanted = before + BEGIN + tree() + END + rest.split(END, 1)[1]
    if "--write" in argv:
        page.write_text(wanted)
        return 0
    if "--check" in argv:
        wrong = [*against_the_floors(arrows()), *circles(arrows())]
        wrong += ["CONTRIBUTING.md holds another tree; python scripts/house.py --write"] if text != wanted else []
        print("\n".join(wrong) or "No import goes against the floors.")
        return bool(wrong)
    print(tree(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
