"""jsonargparse's nested messages as one line: the key, the deepest cause, expected and came, the nearest name."""

import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Callable, Iterable, Iterator

from vit.names import did_you_mean

NAMES_FROM = ("vit.attention", "vit.layers", "vit.models", "vit.tasks", "vit.data", "lightning.pytorch.callbacks")
FACTORY = "expects a function or a callable class"
LONGEST = 400


def one_line(error: BaseException | str, keys: Iterable[str] = ()) -> str:
    """What went wrong, for a user.

    Args:
        error: any error; jsonargparse's are taken apart, others lose their line breaks.
        keys: every key the parser knows, for suggestions.
    """
    text = str(error) or type(error).__name__
    for pattern, explain in CAUSES:
        match = pattern.search(text)
        if match:
            return " ".join(explain(match, text, list(keys)).split())
    return _shorten(" ".join(text.split()))


def nearest(name: str, known: Iterable[str]) -> str:
    """What is near, or all that is known when nothing is and it is not too much."""
    known = sorted(set(known))
    listed = f"; expected one of {', '.join(known)}" if 0 < len(known) <= 24 else ""
    return did_you_mean(name, known) or listed


def _key(match: re.Match[str], text: str, *more: str) -> str:
    """Dotted path of the option at fault: every key named on the way to the cause."""
    found = re.findall(r'Parser key "([^"]+)"', text[: match.start()])
    return ".".join([*dict.fromkeys(found), *more])


def _misspelt(match: re.Match[str], text: str, keys: list[str]) -> str:
    option = match["option"]
    owner = _class_at(match, text)
    if owner is None:
        top = {key.split(".")[0] for key in keys}
        return f"{_key(match, text, option)}: no such option{nearest(option.split('.')[0], top)}"
    known = _options(owner, factory=FACTORY in _line_before(match, text))
    return f"{_key(match, text, option)}: {owner.__name__} has no option {option!r}{nearest(option, known)}"


def _misspelt_in_group(match: re.Match[str], text: str, keys: list[str]) -> str:
    group, option = match["group"], match["option"]
    known = [key.removeprefix(f"{group}.") for key in keys if key.startswith(f"{group}.")]
    return f"{group}.{option}: no such option{nearest(option, known)}"


def _unrecognized(match: re.Match[str], text: str, keys: list[str]) -> str:
    argument = match["argument"]
    if not argument.startswith("-"):
        return f"unexpected argument {argument!r}: options begin with --, configs follow -c"
    option = argument.lstrip("-").partition("=")[0]
    owner = _class_at(match, text)
    if owner is None:
        near = nearest(f"--{option}", [f"--{key}" for key in keys])
        return f"--{option}: no such option{near}"
    name = option
    for name in option.split("."):  # the first that is wrong
        if name not in _options(owner):
            break
        owner = _annotated(owner, name) or owner
    return f"{_key(match, text, option)}: {owner.__name__} has no option {name!r}" + nearest(name, _options(owner))


def _forbidden(match: re.Match[str], text: str, keys: list[str]) -> str:
    return (
        f"{_key(match, text)}: {match['path']} may not be imported from a config: expected a class of vit, "
        "lightning.pytorch, torch.nn or torch.optim"
    )


def _not_in_module(match: re.Match[str], text: str, keys: list[str]) -> str:
    name, module = match["name"], importlib.import_module(match["module"])
    if name[0].isupper():
        known = [public for public in vars(module) if public[0].isupper()]
    else:
        known = [inner.name for inner in pkgutil.iter_modules(vars(module).get("__path__"))]
    return f"{_key(match, text)}: {match['module']} has no {name!r}{nearest(name, known)}"


def _unknown_class(match: re.Match[str], text: str, keys: list[str]) -> str:
    near = nearest(match["name"], _known_classes())
    return f"{_key(match, text)}: unknown class {match['name']!r}{near or ': expected its dotted path'}"


def _no_module(match: re.Match[str], text: str, keys: list[str]) -> str:
    return f"{_key(match, text)}: no module {match['module']!r}"


def _wrong_class(match: re.Match[str], text: str, keys: list[str]) -> str:
    return f"{_key(match, text)}: expected a {match['base'].rpartition('.')[2]}, got {match['path']}"


def _own_words(match: re.Match[str], text: str, keys: list[str]) -> str:
    return match["cause"]


def _wrong_type(match: re.Match[str], text: str, keys: list[str]) -> str:
    expected, got = match["type"].strip(), match["value"].strip().rstrip(".")
    choices = re.findall(r"'([^']*)'", expected) if "Literal" in expected else []
    if choices:
        return f"{_key(match, text)}: expected one of {', '.join(choices)}; got {got!r}{did_you_mean(got, choices)}"
    return f"{_key(match, text)}: expected {_type_name(expected)}, got {_shorten(got, 80)!r}"


def _no_union_member(match: re.Match[str], text: str, keys: list[str]) -> str:
    names = [_type_name(name) for name in _split_types(match["types"])]
    return f"{_key(match, text)}: expected {' or '.join(names)}, got {_shorten(match['value'].strip(), 80)!r}"


SETTLED = "-c quickstart sets what a run needs; before your own config, -c study/cpu what a study needs"
SETTLED_BY = {
    "net": "-c quickstart or -c model/NAME sets one, and --model.init_from RUN takes that of trained weights",
    "teacher": "--model.teacher RUN is the trained classifier to learn from",
}


def _missing(match: re.Match[str], text: str, keys: list[str]) -> str:
    names = [_key(match, text, name.strip()) for name in match["names"].splitlines()[0].split(",")]
    names = [name.rstrip(".") for name in names]
    advice = SETTLED_BY.get(names[0].rpartition(".")[2], SETTLED) if len(names) == 1 else SETTLED
    return f"missing {' and '.join(names)}: {advice}"


Explain = Callable[[re.Match[str], str, list[str]], str]
CAUSES: list[tuple[re.Pattern[str], Explain]] = [
    (re.compile(pattern, flags), explain)
    for pattern, flags, explain in (
        (r"Call to compute_fn of link .*? failed: (?P<cause>.+)", re.S, _own_words),
        (r"Importing '(?P<path>[^']+)' is not allowed", 0, _forbidden),
        (r"Group '(?P<group>[^']+)' does not accept option '(?P<option>[^']+)'", 0, _misspelt_in_group),
        (r"Option '(?P<option>[^']+)' is not accepted", 0, _misspelt),
        (r"unrecognized arguments: (?P<argument>\S+)", 0, _unrecognized),
        (r"module '(?P<module>[^']+)' has no attribute '(?P<name>[^']+)'", 0, _not_in_module),
        (r"No module named '(?P<module>[^']+)'", 0, _no_module),
        (r"Expected a dot import path string: (?P<name>.+?)(?:\. Got value|$)", re.M, _unknown_class),
        (r"Expected '(?P<path>[^']+)' to be a subclass of <class '(?P<base>[^']+)'>", 0, _wrong_class),
        (r"the following arguments are required: (?P<names>.+)", 0, _missing),
        (r"Expected an? (?P<type>[^\n]+?)\. Got value: (?P<value>[^\n]+?)(?:\. Got value|$)", re.M, _wrong_type),
        (
            r"Errors:\n\s+- (?P<cause>(?!Expected |Problem |Does not|Not a valid|Parser key)[^\n]+)",
            0,
            _own_words,
        ),
        (
            r"Subtypes: \[(?P<types>(?:(?!Subtypes:)[^\n])+)\]\n\s*Errors:\n(?:\s+- Expected [^\n]+\n)+\s*"
            r"Given value type: [^\n]+\n\s*Given value: (?P<value>[^\n]+)",
            0,
            _no_union_member,
        ),
    )
]


def _class_at(match: re.Match[str], text: str) -> type | None:
    """The class whose option is at fault, None outside any class."""
    if FACTORY in _line_before(match, text):
        return _import(_outermost_class_path(text[match.end() :]))
    before = re.findall(r"Problem with given class_path '([^']+)'", text[: match.start()])
    return _import(before[-1]) if before else None


def _line_before(match: re.Match[str], text: str) -> str:
    return text[text.rfind("\n", 0, match.start()) + 1 : match.start()]


def _outermost_class_path(text: str) -> str:
    """The class_path of the first ``Namespace(...)`` in ``text``, not of one inside it."""
    depth = 0
    for token in re.finditer(r"[({\[]|[)}\]]|class_path='([^']+)'", text[text.find("Namespace(") :]):
        if token[1] is not None:
            if depth == 1:
                return token[1]
        else:
            depth += 1 if token[0] in "({[" else -1
    return ""


def _import(path: str) -> type | None:
    """A class jsonargparse has accepted and imported before it complained about its options."""
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name, None) if module else None
    return found if inspect.isclass(found) else None


def _options(owner: type, factory: bool = False) -> list[str]:
    """Names of the constructor's arguments; those of a factory that a caller fills have no default."""
    parameters = inspect.signature(owner).parameters.values()
    return [parameter.name for parameter in parameters if not factory or parameter.default is not parameter.empty]


def _annotated(owner: type, parameter: str) -> type | None:
    hint = typing.get_type_hints(owner.__init__).get(parameter)
    return hint if inspect.isclass(hint) else None


def _known_classes() -> Iterator[str]:
    for module in NAMES_FROM:
        yield from (name for name, value in vars(importlib.import_module(module)).items() if inspect.isclass(value))


def _split_types(types: str) -> list[str]:
    return re.split(r",\s*(?![^\[]*\])", types)


def _type_name(text: str) -> str:
    name = re.sub(r"<class '([^']+)'>", lambda match: match[1].rpartition(".")[2], text.strip())
    return "nothing (null)" if name == "NoneType" else name


def _shorten(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
