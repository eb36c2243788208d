"""Checks the shapes in annotations at every call, in tests only: jaxtyping finds the sizes, beartype looks at them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any, TypeVar

import jaxtyping
from beartype import beartype

from rank_search import basics

TYPES = ("Bool", "Float", "Int")
PACKAGES = ("rank_search.", "rank_search_plugins.")

_T = TypeVar("_T")


def check_shapes() -> None:
    """From now on, what is imported of our packages is checked."""
    early = [name for name, module in sys.modules.items() if _is_ours(name) and _uses_shapes(module.__file__)]
    assert not early, f"imported before anything could be checked: {early}"
    for name in TYPES:
        setattr(basics, name, getattr(jaxtyping, name))
    sys.meta_path.insert(0, _Finder())


def checked(function_or_class: _T) -> _T:
    """Raises `jaxtyping.TypeCheckError` where an argument, a field or what is returned has another shape."""
    return jaxtyping.jaxtyped(function_or_class, typechecker=_shapes_alone)


def _is_ours(module: str) -> bool:
    return module.startswith(PACKAGES) and not module.startswith("rank_search.basics")


def _uses_shapes(path: str | None) -> bool:
    return path is not None and path.endswith(".py") and _mentions_shapes(Path(path).read_text(encoding="utf-8"))


def _mentions_shapes(text: str) -> bool:
    return any(f"{name}[" in text for name in TYPES)


def _shapes_alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """mypy looks at all other types."""
    hints = {name: hint for name, hint in function.__annotations__.items() if "jaxtyping" in repr(hint)}
    function.__annotations__ = hints
    return beartype(function) if hints else function


class _Decorate(ast.NodeTransformer):
    """Decorates each function with shapes in its signature, and each class with shapes in its fields."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        self.generic_visit(node)
        future = [place for place, each in enumerate(node.body) if ast.unparse(each).startswith("from __future__")]
        node.body[future[-1] + 1 : future[-1] + 1] = ast.parse("import tests.shapes as _shapes").body
        return ast.fix_missing_locations(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        hints = [each.annotation for each in ast.walk(node.args) if isinstance(each, ast.arg)]
        if _mentions_shapes(" ".join(ast.unparse(hint) for hint in [*hints, node.returns] if hint is not None)):
            node.decorator_list.append(_decorator())  # before `no_grad`, `cache` and the like
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        fields = [ast.unparse(each.annotation) for each in node.body if isinstance(each, ast.AnnAssign)]
        if _mentions_shapes(" ".join(fields)):
            node.decorator_list.insert(0, _decorator())  # after `dataclass`
        return node


def _decorator() -> ast.expr:
    return ast.parse("_shapes.checked", mode="eval").body


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> Any:
        """Compiled anew, so that no byte code is left for those who do not test."""
        tree = ast.parse(self.get_data(self.path))
        return compile(_Decorate().visit(tree), self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if _is_ours(fullname) else None
        if spec is None or not _uses_shapes(spec.origin):
            return None
        spec.loader = _Loader(fullname, str(spec.origin))
        return spec
