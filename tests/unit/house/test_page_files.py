"""The live page's files fit together: what oxlint, which judges each file by itself, does not see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eddy.serving.page import files

FOLDER = files.FOLDER.resolve()
MODULES = {file: file.read_text() for file in sorted(FOLDER.rglob("*.js"))}
STYLES = "\n".join(file.read_text() for file in sorted(FOLDER.rglob("*.css")))
PAGE = (FOLDER / "index.html").read_text()
OF_VIEWS = {"open", "title"}
"""What app.js asks of each view by name, of a module that it imports when the view is opened."""

BROWSER_TESTS = (Path(__file__).parents[2] / "browser" / "test_page.py").read_text()

_IMPORT = re.compile(r'import \{([^}]*)\} from "([^"]+)";')
_LATER = re.compile(r'import\("([^"]+)"\)')
_BY_A_TEST = re.compile(r'const \{([^}]*)\} = await import\(new URL\("page/([^"]+)"')
_EXPORT = re.compile(r"^export (?:async )?(?:const|function|class) (\w+)", re.MULTILINE)


def imports(module: Path) -> list[tuple[Path, set[str]]]:
    """Which names a module takes from which file."""
    found = [
        (where, {name.strip() for name in names.split(",") if name.strip()})
        for names, where in _IMPORT.findall(MODULES[module])
    ]
    found += [(where, OF_VIEWS) for where in _LATER.findall(MODULES[module])]
    return [((module.parent / where).resolve(), names) for where, names in found]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.relative_to(FOLDER).as_posix())
def test_what_a_module_imports_is_there_and_what_it_exports_is_imported(module: Path) -> None:
    for file, names in imports(module):
        assert names <= set(_EXPORT.findall(MODULES[file])), f"from {file.relative_to(FOLDER)}"
    taken = {name for other in MODULES for file, names in imports(other) if file == module for name in names}
    for names, where in _BY_A_TEST.findall(BROWSER_TESTS):
        if FOLDER / where == module:
            taken |= {name.strip() for name in names.split(",")}
    assert set(_EXPORT.findall(MODULES[module])) == taken


def test_the_page_loads_every_stylesheet_and_no_file_that_is_not_there() -> None:
    named = {FOLDER / path for path in re.findall(r'(?:href|src)="page/([^"]+)"', PAGE)}
    assert [file for file in named if not file.is_file()] == []
    assert set(FOLDER.rglob("*.css")) <= named


def test_every_class_that_is_styled_is_given_to_something() -> None:
    selectors = re.sub(r"\{[^{}]*\}", "{}", re.sub(r"/\*.*?\*/", "", STYLES, flags=re.DOTALL))
    styled = set(re.findall(r"\.([a-z][\w-]*)", selectors))
    text = PAGE + "".join(MODULES.values())
    assert {name for name in styled if not re.search(rf"(?<![\w-]){name}(?![\w-])", text)} == set()


def test_every_colour_and_size_is_defined_once_in_a_scheme_and_used() -> None:
    defined = set(re.findall(r"(--[\w-]+):", STYLES))
    text = STYLES + "".join(MODULES.values())
    used = set(re.findall(r"var\((--[\w-]+)", text)) | set(re.findall(r'"(--[\w-]+)"', text))
    assert used - defined == {"--c"}  # given to an element by its module: the colour of a series
    assert defined - used == set()
