"""The only jinja2: what is rendered for people and agents.

A name that a template does not get is an error, never an empty string.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox

from orchestrator.errors import ConfigError

Environment = jinja2.Environment


def pages(folder: Path) -> Environment:
    """For pages of HTML: every value is escaped."""
    return Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _words() -> Environment:
    # Words of a configuration: no template of theirs needs more than values and filters.
    return jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
    )  # what comes out is one argument of a program, never markup


def word(where: str, template: str, values: Mapping[str, Any]) -> str:
    """One argument of a command line.

    Raises:
        ConfigError: the template is none, or asks for what there is not; `where` names the key.
    """
    try:
        return _words().from_string(template).render(values)
    except jinja2.UndefinedError as error:
        known = ", ".join(sorted(values))
        raise ConfigError(f"{where}: {error.message}.", hint=f"Known: {known}.") from None
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {template!r} is no template: {error}.") from None
