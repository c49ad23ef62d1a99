"""A registry of classes by name, for clusterings, attentions, data sets, methods and tasks."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pacavit.errors import PacavitError, RecipeError, UnknownNameError
from pacavit.utils.text import one_line

__all__ = ["Plugin", "Registry", "load_plugin", "loaded_plugins", "plugins_of", "rename_options"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name.

    Entries come from the ``register`` decorator and from installed entry points of the group
    ``pacavit.<kind>``, which are loaded at the first look-up. If one of them fails to load, or has
    the name of another entry, every look-up raises PacavitError.

    Args:
        kind: the kind of the entries in the singular, for error messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, type[T]] = {}
        self._renamed: dict[str, str] = {}  # new names by old ones
        self._discovered = False

    def register(self, name: str, *, formerly: Sequence[str] = ()) -> Callable[[type[T]], type[T]]:
        """Decorate a class to register it as ``name``.

        Args:
            name: of the class; a name that is taken raises ValueError.
            formerly: older names, accepted with a FutureWarning and listed nowhere.
        """

        def enter(cls: type[T]) -> type[T]:
            if name in self._entries:
                raise ValueError(
                    f"{self.kind} {name!r} is already registered, as {_where(self._entries[name])}"
                )
            self._entries[name] = cls
            self._renamed.update(dict.fromkeys(formerly, name))
            return cls

        return enter

    def canonical(self, name: str) -> str:
        """The current name of an entry, for its current or an older name.

        Raises:
            UnknownNameError: there is no such entry; the message suggests the nearest names.
        """
        self._discover()
        if name in self._entries:
            return name
        if name not in self._renamed:
            raise UnknownNameError(self.kind, name, self.names())
        new = self._renamed[name]
        warnings.warn(
            f"{self.kind} {name!r} is now called {new!r}; the old name will be removed in the next "
            "release",
            FutureWarning,
            stacklevel=3,
        )
        return new

    def get(self, name: str) -> type[T]:
        """The class registered as ``name``; raises UnknownNameError with the nearest names."""
        return self._entries[self.canonical(name)]

    def create(self, name: str, *args: Any, options: Mapping[str, Any], **kwargs: Any) -> T:
        """Create an instance of a registered class from fixed arguments and a user's options.

        Old names of options are accepted, see :func:`rename_options`. Raises UnknownNameError for
        an option that is not in the signature of the class, or that is given by the fixed keyword
        arguments.
        """
        cls = self.get(name)
        options = rename_options(cls, options)
        parameters = list(inspect.signature(cls).parameters.values())[len(args) :]
        known = [parameter.name for parameter in parameters if parameter.name not in kwargs]
        for option in options:
            if option not in known:
                raise UnknownNameError("option", option, known, f"of {self.kind} {name!r}")
        return cls(*args, **kwargs, **options)

    def names(self) -> tuple[str, ...]:
        """All current names in order of registration."""
        self._discover()
        return tuple(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _discover(self) -> None:
        """Register the entry points of installed packages: all of them, or PacavitError."""
        if self._discovered:
            return
        before = dict(self._entries)
        # A package that looks up names while it is imported must not recurse.
        self._discovered = True
        try:
            for point in entry_points(group=f"pacavit.{self.kind}"):
                self._enter(point)
        except BaseException:
            self._entries, self._discovered = before, False
            raise

    def _enter(self, point: EntryPoint) -> None:
        package = point.dist.name if point.dist else "of unknown name"
        culprit = f"{self.kind} {point.name!r} ({point.value}) of the installed package {package}"
        try:
            cls: type[T] = point.load()
        except Exception as error:
            reason = one_line(error, kind=True)
            raise PacavitError(
                f"{culprit} failed to load: {reason}; fix or uninstall the package"
            ) from error
        # The package may use the decorator as well.
        known = self._entries.setdefault(point.name, cls)
        if known is not cls:
            raise PacavitError(
                f"{culprit} has the name of {_where(known)}; rename one, or uninstall the package"
            )


def rename_options(
    cls: type, options: Mapping[str, Any], construct: Callable[..., Any] | None = None
) -> dict[str, Any]:
    """Options of a class with old names replaced by new ones, each with a FutureWarning.

    Args:
        cls: may have an attribute ``renamed_options``, from old names to new ones.
        options: by old or new names.
        construct: receives the options, by default the class; names in its signature are kept.

    Raises:
        RecipeError: an option is given by both of its names.
    """
    renamed: Mapping[str, str] = getattr(cls, "renamed_options", {})
    current = dict(options)
    given = [old for old in renamed if old in current]
    parameters = inspect.signature(construct or cls).parameters if given else {}
    for old in given:
        new = renamed[old]
        if old in parameters:  # a subclass may have an option of its own of this name
            continue
        if new in current:
            raise RecipeError(
                f"options {old!r} and {new!r} of {cls.__name__} are the same; give only {new!r}"
            )
        warnings.warn(
            f"option {old!r} of {cls.__name__} is now called {new!r}; the old name will be removed "
            "in the next release",
            FutureWarning,
        )
        current[new] = current.pop(old)
    return current


def _where(cls: type) -> str:
    """The full name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


class Plugin(NamedTuple):
    """A user's Python file that was loaded.

    Attributes:
        path: of the file.
        sha256: of its content when it was loaded.
    """

    path: Path
    sha256: str


_PLUGINS: dict[str, Plugin] = {}  # by the names of their modules


def plugins_of(classes: Iterable[type]) -> list[Plugin]:
    """The plug-ins that define some of these classes, in the order they were loaded."""
    modules = {each.__module__ for each in classes}
    return [plugin for name, plugin in _PLUGINS.items() if name in modules]


def loaded_plugins() -> list[Plugin]:
    """All plug-ins in the order they were loaded, for processes that need them too."""
    return list(_PLUGINS.values())


def load_plugin(path: str | Path) -> None:
    """Run a user's Python file, which registers its classes.

    A file is loaded only once. Raises PacavitError if the file is missing or fails to import.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise PacavitError(f"no plugin file at {path}")
    name = f"pacavit_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PacavitError(f"plugin {path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise PacavitError(
            f"plugin {path} failed to load: {type(error).__name__}: {error}"
        ) from error
    _PLUGINS[name] = Plugin(path, digest)
