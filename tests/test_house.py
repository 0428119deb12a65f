"""The rules of the house, read off the code's own syntax tree. Each rule is shown a snippet that breaks it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

import nrp

ROOT = Path(nrp.__file__).parent
ROOMS = ("model_store", "robustness", "service", "training")
MAY_IMPORT = MappingProxyType(
    {
        "model_store": frozenset(),
        "robustness": frozenset({"model_store"}),
        "training": frozenset({"model_store", "robustness"}),
        "service": frozenset({"model_store"}),
        "nrp": frozenset({"model_store"}),
    }
)
ATTACK_PAGE = "service/lab.py"
NAMELESS = frozenset({"utils", "util", "helpers", "helper", "common", "misc"})
LONGEST_FILE = 330
LONGEST_FUNCTION = 60
MUTABLE_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTABLE_CALLS = frozenset({"list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict"})
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Source:
    """One file: its path from the project's root, and its text."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def room(self) -> str:
        return Path(self.path).parts[0].removesuffix(".py")

    @property
    def is_command_line(self) -> bool:
        return Path(self.path).name in ("commands.py", "nrp.py") or Path(self.path).parent.name == "commands"


Rule = Callable[[Source], Iterator[str]]


def imports(tree: ast.AST) -> Iterator[tuple[str, str | None, str]]:
    """Every absolute import anywhere in a tree: module, the name taken from it if any, the name bound here."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, alias.asname or alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                yield node.module or "", alias.name, alias.asname or alias.name


def wrong_direction(source: Source) -> Iterator[str]:
    allowed = MAY_IMPORT[source.room] | {source.room}
    if source.path == ATTACK_PAGE:
        allowed |= {"robustness"}
    for module, _, _ in imports(source.tree):
        top = module.split(".")[0]
        if top in (*ROOMS, "nrp", "tests") and top not in allowed:
            yield f"imports {module}"


def relative_import(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"line {node.lineno}: relative import; the direction of imports should be read off the line"


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def underscore_across_rooms(source: Source) -> Iterator[str]:
    foreign = set()
    for module, name, bound in imports(source.tree):
        top = module.split(".")[0]
        if top not in ROOMS or top == source.room:
            continue
        foreign.add(bound)
        if any(private(part) for part in (*module.split("."), name or "")):
            yield f"imports {module}.{name}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in foreign:
                yield f"line {node.lineno}: {root.id}...{node.attr}"


def print_outside_commands(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        is_print = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        if is_print and not source.is_command_line:
            yield f"line {node.lineno}: print"


def nameless_file(source: Source) -> Iterator[str]:
    for part in Path(source.path).with_suffix("").parts:
        if part.strip("_") in NAMELESS:
            yield f"{part} names nothing"


def long_file(source: Source) -> Iterator[str]:
    lines = len(source.text.splitlines())
    if lines > LONGEST_FILE:
        yield f"{lines} lines"


def long_function(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, FUNCTIONS):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield f"{node.name}: {lines} lines"


def run_at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs when the module is imported: not the bodies of functions, but their defaults."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, FUNCTIONS):
            todo += [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
        elif isinstance(node, ast.Lambda):
            todo += [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        else:
            todo += ast.iter_child_nodes(node)


def called_name(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def module_level(tree: ast.AST) -> Iterator[ast.AST]:
    """The statements of a module itself, also those under an ``if`` or ``try``, not those of classes and functions."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.ClassDef, *FUNCTIONS)):
            yield node
            yield from module_level(node)


def mutable_module_state(source: Source) -> Iterator[str]:
    for node in module_level(source.tree):
        if not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [ast.unparse(target) for target in targets]
        if names != ["__all__"] and (
            isinstance(node.value, MUTABLE_DISPLAYS) or called_name(node.value) in MUTABLE_CALLS
        ):
            yield f"line {node.lineno}: {', '.join(names)} can be changed by anyone"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Global):
            yield f"line {node.lineno}: global {', '.join(node.names)}"


def environment_at_import(source: Source) -> Iterator[str]:
    for node in run_at_import(source.tree):
        if getattr(node, "attr", getattr(node, "id", "")) in ("environ", "environb", "getenv", "getenvb"):
            yield f"line {getattr(node, 'lineno', 0)}: reads the environment when imported"


RULES: tuple[Rule, ...] = (
    wrong_direction,
    relative_import,
    underscore_across_rooms,
    print_outside_commands,
    nameless_file,
    long_file,
    long_function,
    mutable_module_state,
    environment_at_import,
)


def house() -> list[Source]:
    files = [ROOT / "nrp.py", *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in sorted(files)]


def test_there_is_a_house_to_inspect() -> None:
    assert {source.room for source in house()} == {*ROOMS, "nrp"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    broken = [f"{source.path}: {fault}" for source in house() for fault in rule(source)]
    assert not broken, "\n".join(broken)


BROKEN: tuple[tuple[Rule, str, str], ...] = (
    (wrong_direction, "model_store/x.py", "import robustness.attacks"),
    (wrong_direction, "model_store/x.py", "def f():\n    from service import app"),
    (wrong_direction, "robustness/x.py", "from training.loop import run"),
    (wrong_direction, "robustness/x.py", "import os, service"),
    (wrong_direction, "training/x.py", "from service.app import create_app"),
    (wrong_direction, "service/x.py", "from robustness.attacks import PGD"),
    (wrong_direction, "service/lab.py", "import training"),
    (wrong_direction, "service/deeper/lab.py", "import robustness"),
    (wrong_direction, "nrp.py", "import service.commands"),
    (wrong_direction, "service/x.py", "import nrp"),
    (relative_import, "service/x.py", "from ..training import loop"),
    (underscore_across_rooms, "service/x.py", "from model_store.store import _write_durably"),
    (underscore_across_rooms, "service/x.py", "from model_store import _private"),
    (underscore_across_rooms, "service/x.py", "import model_store._hidden"),
    (underscore_across_rooms, "service/x.py", "from model_store import store\nstore._swap_in()"),
    (underscore_across_rooms, "service/x.py", "import model_store.store\nmodel_store.store._swap_in()"),
    (print_outside_commands, "service/x.py", "def f():\n    print('x')"),
    (nameless_file, "service/utils.py", ""),
    (nameless_file, "training/_helpers.py", ""),
    (nameless_file, "robustness/common/x.py", ""),
    (long_file, "service/x.py", "x = 1\n" * 331),
    (long_function, "service/x.py", "class A:\n    async def f():\n" + "        pass\n" * 60),
    (mutable_module_state, "service/x.py", "KNOWN = []"),
    (mutable_module_state, "service/x.py", "cache: dict[str, int] = {}"),
    (mutable_module_state, "service/x.py", "if True:\n    seen = {x for x in ()}"),
    (mutable_module_state, "service/x.py", "import collections\nqueue = collections.deque()"),
    (mutable_module_state, "service/x.py", "count = 0\ndef f():\n    global count\n    count = 1"),
    (environment_at_import, "service/x.py", "import os\nPORT = os.environ['PORT']"),
    (environment_at_import, "service/x.py", "from os import getenv\nclass S:\n    port = getenv('PORT')"),
    (environment_at_import, "service/x.py", "import os\ndef f(port=os.getenv('PORT')): pass"),
)


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN, ids=lambda part: getattr(part, "__name__", None))
def test_a_broken_rule_is_seen(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text)))


KEPT: tuple[tuple[Rule, str, str], ...] = (
    (wrong_direction, "service/lab.py", "import robustness.attacks"),
    (wrong_direction, "training/x.py", "import torch, training.loop, robustness.attacks, model_store.card"),
    (wrong_direction, "robustness/x.py", "import servicing, model_store"),
    (underscore_across_rooms, "service/x.py", "from service.y import _near\nself._mine = __future__"),
    (print_outside_commands, "service/commands.py", "print('x')"),
    (print_outside_commands, "service/commands/x.py", "print('x')"),
    (print_outside_commands, "service/x.py", "blueprint('x')"),
    (nameless_file, "service/miscible.py", ""),
    (long_file, "service/x.py", "x = 1\n" * 330),
    (long_function, "service/x.py", "def f():\n" + "    pass\n" * 59),
    (mutable_module_state, "service/x.py", "__all__ = ['x']\nT = MappingProxyType({'a': []})\ndef f():\n    x = []"),
    (mutable_module_state, "service/x.py", "class Card:\n    labels: list[str] = []"),
    (environment_at_import, "service/x.py", "import os\ndef f():\n    return os.environ['PORT']"),
)


@pytest.mark.parametrize(("rule", "path", "text"), KEPT, ids=lambda part: getattr(part, "__name__", None))
def test_what_a_rule_allows_is_not_reported(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text))) == []


def test_every_rule_is_seen_to_fail() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(RULES)
