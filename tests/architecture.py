"""Reads a package's source and says where it breaks the rules of the house. Standard library only; imports nothing.

A `Tree` is a package on disk. Each check is a function from a tree to a list of sentences, one per violation, so that
the same checks run on varbnn and, in the tests, on small bad packages.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOF = 6  # the only floor that may import the package itself

FLOORS = {
    "errors": 0,
    "bits": 0,
    "progress": 0,
    "text": 0,  # how tables and numbers look in a terminal
    "checks": 0,  # what counts and numbers have to be
    "kernels": 1,
    "saving": 1,  # files of plain state, knows no model
    "data": 1,  # reads arrays, knows no model
    "posteriors": 2,
    "nn": 3,
    "optim": 4,
    "predict": 5,
    "active": 5,
    "packed": 5,
    "continual": 5,
    "sdp": 5,
    "integer": 5,
    "training": 5,
    "presets": 5,
    "bridges": ROOF,
    "demo": ROOF,
    "cli": ROOF,
    "__main__": ROOF,
}

# Neighbours on one floor do not know each other, except:
NEIGHBOURS = {
    ("bits", "errors"),  # bad input is refused on the ground floor too
    ("checks", "errors"),
    ("active", "predict"),  # what to label next follows from predictions
    ("active", "packed"),  # averaged ones too
    ("continual", "predict"),  # every task learned so far is judged by predictions
    ("predict", "packed"),  # predict runs sampled networks packed where that is faster
    ("demo", "bridges"),  # these two are the program; they show what the library can do
    ("cli", "bridges"),
    ("cli", "demo"),
    ("__main__", "cli"),
}

# Downwards, and still not allowed:
STRANGERS = {("optim", "nn"): "a rule sees parameters, never layers"}

MODULE_LINES = 300
FUNCTION_LINES = 60


@dataclass(frozen=True)
class Import:
    line: int
    target: str  # dotted name of a module of the package, or of the package itself


@dataclass(frozen=True)
class Module:
    name: str  # dotted, "varbnn.nn.linear"; a package's __init__ has the package's name
    path: Path
    is_package: bool

    @cached_property
    def source(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def syntax(self) -> ast.Module:
        return ast.parse(self.source, str(self.path))

    @property
    def part(self) -> str:
        """The top-level member this belongs to: "nn" for varbnn.nn.linear, "" for the package itself."""
        return (self.name.split(".") + [""])[1]

    def definitions(self) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        return {node.name: node for node in self.syntax.body if isinstance(node, kinds)}

    def exports(self) -> list[str]:
        """The names in `__all__`; none without one."""
        for node in self.syntax.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
                return [e.value for e in ast.walk(node.value) if isinstance(e, ast.Constant)]
        return []


class Tree:
    """All modules of the package in `folder`, found by walking it."""

    def __init__(self, folder: Path) -> None:
        self.package = folder.name
        self.root = folder.parent
        self.modules: dict[str, Module] = {}
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(self.root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            self.modules[name] = Module(name, path, is_package)

    def where(self, module: Module, line: int) -> str:
        return f"{module.path.relative_to(self.root)}:{line}"

    def imports(self, module: Module) -> list[Import]:
        """Every import of the package's own modules, wherever in the file it stands."""
        found = []
        for node in ast.walk(module.syntax):
            if isinstance(node, ast.Import):
                found += [Import(node.lineno, alias.name) for alias in node.names if self._ours(alias.name)]
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(module, node)
                if self._ours(base):
                    for alias in node.names:
                        inner = f"{base}.{alias.name}"
                        found.append(Import(node.lineno, inner if inner in self.modules else base))
        return found

    def definition(self, module: Module, name: str) -> tuple[Module, ast.AST] | None:
        """Where an exported name is defined, following re-exports; None for what is neither function nor class."""
        if name in module.definitions():
            return module, module.definitions()[name]
        for node in ast.walk(module.syntax):
            if isinstance(node, ast.ImportFrom):
                source = self.modules.get(self._absolute(module, node))
                for alias in node.names:
                    if source and source is not module and (alias.asname or alias.name) == name:
                        return self.definition(source, alias.name)
        return None

    def _ours(self, name: str) -> bool:
        return name == self.package or name.startswith(self.package + ".")

    def _absolute(self, module: Module, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parents = module.name.split(".")
        parents = parents[: len(parents) - node.level + module.is_package]
        return ".".join(parents + ([node.module] if node.module else []))


def unplaced_modules(tree: Tree) -> list[str]:
    return [
        f"{tree.where(module, 1)}: {module.part!r} has no floor; enter it in FLOORS of tests/architecture.py"
        for module in tree.modules.values()
        if module.part and module.part not in FLOORS
    ]


def upward_imports(tree: Tree) -> list[str]:
    sentences = []
    for module in tree.modules.values():
        for found in tree.imports(module):
            here, there = module.part, (found.target.split(".") + [""])[1]
            if here == there or not {here, there} - {""} <= FLOORS.keys():
                continue  # inside one part everything is allowed but cycles; unplaced parts have their own sentence
            reason = _objection(here, there)
            if reason:
                sentences.append(f"{tree.where(module, found.line)}: imports {found.target}, but {reason}")
    return sentences


def _objection(here: str, there: str) -> str | None:
    if not here:
        reason = f"the package itself re-exports only what lies below floor {ROOF}"
        return reason if FLOORS[there] >= ROOF else None
    if not there:
        reason = f"only floor {ROOF} may import the package itself and {here} is on floor {FLOORS[here]}"
        return reason if FLOORS[here] < ROOF else None
    if (here, there) in STRANGERS:
        return f"{here} (floor {FLOORS[here]}) never imports {there}: {STRANGERS[here, there]}"
    if FLOORS[there] > FLOORS[here]:
        return f"{there} is on floor {FLOORS[there]}, above {here} on floor {FLOORS[here]}"
    if FLOORS[there] == FLOORS[here] and (here, there) not in NEIGHBOURS:
        return f"{there} and {here} are neighbours on floor {FLOORS[here]}"
    return None


def import_cycles(tree: Tree) -> list[str]:
    """One sentence per module that reaches itself, imports inside functions included."""
    edges = {name: {i.target: i.line for i in tree.imports(m)} for name, m in tree.modules.items()}
    sentences, reported = [], set()
    for start in edges:
        path = _path_back(edges, start)
        if path and not reported & set(path):
            reported |= set(path)
            line = edges[start][path[1]]
            sentences.append(f"{tree.where(tree.modules[start], line)}: import cycle {' -> '.join(path)}")
    return sentences


def _path_back(edges: dict[str, dict[str, int]], start: str) -> list[str] | None:
    queue, seen = [[start]], set()
    while queue:
        path = queue.pop(0)
        for target in edges.get(path[-1], {}):
            if target == start:
                return path + [start]
            if target not in seen:
                seen.add(target)
                queue.append(path + [target])
    return None


def long_modules(tree: Tree) -> list[str]:
    lengths = {module: len(module.source.splitlines()) for module in tree.modules.values()}
    return [
        f"{tree.where(module, length)}: {length} lines, allowed {MODULE_LINES}; split it by reason to change"
        for module, length in lengths.items()
        if length > MODULE_LINES
    ]


def long_functions(tree: Tree) -> list[str]:
    return [
        f"{tree.where(module, node.lineno)}: {node.name} has {length} lines without its docstring, "
        f"allowed {FUNCTION_LINES}"
        for module in tree.modules.values()
        for node, length in _functions(module)
        if length > FUNCTION_LINES
    ]


def _functions(module: Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    for node in ast.walk(module.syntax):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documentation = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) is not None else 0
            yield node, node.end_lineno - node.lineno + 1 - documentation


def defining_init_files(tree: Tree) -> list[str]:
    return [
        f"{tree.where(module, node.lineno)}: __init__ defines {name}; it may only re-export"
        for module in tree.modules.values()
        if module.is_package
        for name, node in module.definitions().items()
    ]


def undocumented_names(tree: Tree) -> list[str]:
    found = {
        (origin.name, node.name): f"{tree.where(origin, node.lineno)}: {node.name} is public and has no docstring"
        for module in tree.modules.values()
        for name in module.exports()
        for origin, node in filter(None, [tree.definition(module, name)])
        if ast.get_docstring(node) is None
    }
    return list(found.values())


CHECKS = [
    unplaced_modules,
    upward_imports,
    import_cycles,
    long_modules,
    long_functions,
    defining_init_files,
    undocumented_names,
]
