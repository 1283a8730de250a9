"""A net's spec: its constructor tree as plain data, so that a saved model can be built again without its code path.

Parts are injected as factories (a class, or a partial of a class), so the arguments of the outermost constructor hold
the whole tree. `build` imports only from this package and torch.nn, and checks that before it imports.
"""

import importlib
import inspect
from collections.abc import Iterator
from functools import partial, wraps
from typing import Any, TypeVar

T = TypeVar("T", bound=type)
ALLOWED = ("vit.attention.", "vit.layers.", "vit.models.", "torch.nn.")
_MEMORY = "_init_arguments"


def keeps_spec(cls: T) -> T:
    """Class decorator: instances remember the arguments they were built with."""
    init = cls.__init__
    signature = inspect.signature(init)

    @wraps(init)
    def remembering_init(self: object, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        _, *given = bound.arguments.items()
        object.__setattr__(self, _MEMORY, dict(given))

    cls.__init__ = remembering_init
    return cls


def spec(net: object) -> dict[str, Any]:
    """The constructor tree of ``net`` as JSON-able data.

    Raises:
        ValueError: ``net``'s class does not keep its arguments, or an argument has no plain form (a lambda, say).
    """
    arguments = vars(net).get(_MEMORY)
    if arguments is None:
        raise ValueError(f"{type(net).__qualname__} keeps no spec: expected a class decorated with @keeps_spec")
    return {"class": _path(type(net)), "args": {name: plain(value, name) for name, value in arguments.items()}}


def options(tree: dict[str, Any]) -> dict[str, Any]:
    """Every option of a spec by its dotted path, defaults filled in; that of a part is the path of its class.

    Two specs with the same options build nets that compute the same, wherever they were written.
    """
    return dict(_options(tree, ""))


def build(tree: dict[str, Any]) -> Any:
    """The net a spec describes, freshly initialised.

    Raises:
        ValueError: no tree, a class that is no part of a net, an unknown class, or an argument it does not take.
    """
    if not isinstance(tree, dict) or "class" not in tree:
        came = f"the keys {', '.join(tree) or 'none'}" if isinstance(tree, dict) else repr(tree)
        raise ValueError(f"a spec is expected to be a tree with a class, got {came}")
    return _value({**tree})


def _options(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, list):
        for place, item in enumerate(tree):
            yield from _options(item, f"{path}.{place}")
        return
    if not isinstance(tree, dict):
        yield path, tree
        return
    cls = _import(tree["factory"] if "factory" in tree else tree["class"])
    yield path, _path(cls)
    given = tree.get("args", {})
    defaults = {
        name: plain(parameter.default, name)
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is not parameter.empty
    }
    for name, value in {**defaults, **given}.items():
        yield from _options(value, f"{path}.{name}" if path else name)


def plain(value: Any, name: str) -> Any:
    """One argument of a spec: plain data, a class, or a partial of a class as what builds it.

    Raises:
        ValueError: it has no plain form; ``name`` is what it is an argument of.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, name) for item in value]
    if isinstance(value, dict):
        return {key: plain(item, name) for key, item in value.items()}
    if inspect.isclass(value):
        return {"factory": _path(value), "args": {}}
    if isinstance(value, partial):
        # jsonargparse hands the class to an instantiating function; a plain partial holds it as its function
        target = next((part for part in (value.func, *value.args) if inspect.isclass(part)), None)
        if target is not None:
            return {"factory": _path(target), "args": {key: plain(item, key) for key, item in value.keywords.items()}}
    raise ValueError(f"{name}={value!r} cannot be written to a spec: expected plain data, a class or a partial of one")


def _value(tree: Any) -> Any:
    if isinstance(tree, list):
        return tuple(_value(item) for item in tree)
    if not isinstance(tree, dict):
        return tree
    given = tree.get("args", {})
    if not isinstance(given, dict):
        raise ValueError(f"a spec's args are expected by name, got {given!r}")
    arguments = {name: _value(item) for name, item in given.items()}
    if "factory" in tree:
        factory = _import(tree["factory"])
        return partial(factory, **arguments) if arguments else factory
    if "class" in tree:
        cls = _import(tree["class"])
        try:
            return cls(**arguments)
        except TypeError as error:
            raise ValueError(f"{tree['class']} cannot be built from its spec: {error}") from error
    return {key: _value(item) for key, item in tree.items()}


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _import(path: str) -> type[Any]:
    foreign = f"spec names {path}: expected a class of {' or '.join(name.rstrip('.') for name in ALLOWED)}"
    if not isinstance(path, str) or not path.startswith(ALLOWED):
        raise ValueError(foreign)
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"spec names {path}, which this version of vit does not have") from error
    if not inspect.isclass(cls):
        raise ValueError(f"spec names {path}: expected a class, got {type(cls).__name__}")
    if not cls.__module__.startswith(ALLOWED):  # one that a module there has imported
        raise ValueError(foreign)
    return cls
