"""What the reference reads besides the sources: docstrings of the compiled module, and our sections in Markdown."""

from __future__ import annotations

import inspect
import re
from functools import reduce
from typing import Any

import griffe

import treadle._core

SHAPE = re.compile(r"^Shape:\n((?: {4}.*\n?|\n(?= {4}))+)", re.MULTILINE)
CHOICES = re.compile(r"^(\w+ : )\{(.*)\}", re.MULTILINE)


class Docstrings(griffe.Extension):
    """The stubs of `treadle._core` have types but no text; the extension module itself has the text."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **_: Any) -> None:
        """Called for every object that was read from the sources."""
        if obj.path.startswith("treadle._core.") and obj.docstring is None and (text := _text(obj.path)):
            obj.docstring = griffe.Docstring(
                text, parent=obj, parser=loader.docstring_parser, parser_options=loader.docstring_options
            )
        if obj.is_module:
            obj.docstring = None  # it is for readers of the sources; the pages have words of their own
        if obj.docstring is not None:
            obj.docstring.value = _markdown(obj.docstring.value)
            if obj.path.startswith("treadle.sklearn."):
                _numpy(obj.docstring)


def _numpy(docstring: griffe.Docstring) -> None:
    """Has it read in scikit-learn's form, which a page's option would do for a class, but not for what it inherits."""
    docstring.parser, docstring.parser_options = griffe.Parser.numpy, {}
    # The parser takes the first of choices in braces for the default, and the hyphen for a minus.
    docstring.value = CHOICES.sub(r"\1one of \2", docstring.value).replace(": array-like", ": array_like")


def _text(path: str) -> str | None:
    """The docstring that Python shows for a name of the compiled module."""
    found = reduce(lambda value, name: getattr(value, name, None), path.split(".")[2:], treadle._core)
    own = None if found is None else found.__doc__
    return inspect.cleandoc(own) if own and not path.rpartition(".")[2].startswith("__") else None


def _markdown(text: str) -> str:
    """Examples under the name that the reader of docstrings knows, shapes as a paragraph, and their stars as stars."""
    text = inspect.cleandoc(text).replace("\nExample:\n", "\nExamples:\n")
    text = SHAPE.sub(lambda found: f"**Shape:** {inspect.cleandoc(found[1])}\n\n", text)
    return re.sub(r"\(\*(?=[,)])", r"(\\*", text)
