"""Every test that the page on reliability names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text()


def test_the_named_tests_exist() -> None:
    checked, folder = 0, ROOT / "tests/python"
    # A name without a file is in the file that its section or the page names.
    default = folder / "test_reliability.py"
    for line in PAGE.splitlines():
        if line.startswith("## "):
            default = folder / "test_reliability.py"
        if heading := re.match(r"\| promise \| test in `(test_\w+\.py)`", line):
            default = folder / heading[1]
        for file, name in re.findall(r"`(?:(test_\w+\.py)(?:::)?)?(test_\w+)?`", line):
            if not file and not name:
                continue
            path = folder / file if file else default
            assert path.is_file(), f"{path.name} is named but does not exist"
            assert not name or re.search(rf"^def {name}\(", path.read_text(), re.MULTILINE), f"{name} is not in {path.name}"
            checked += bool(name)
        for name, file in re.findall(r"`(\w+)` in `(rust/[\w/]+\.rs)`", line):
            assert f"fn {name}()" in (ROOT / file).read_text(), f"{name} is not in {file}"
            checked += 1
    assert checked >= 30


def test_the_named_commands_exist() -> None:
    commands = re.findall(r"python -m ((?:tests|benches)\.\w+)", PAGE)
    assert len(set(commands)) >= 4
    for name in commands:
        path = ROOT / name.replace(".", "/")
        assert (path / "__main__.py").is_file() or path.with_suffix(".py").is_file(), f"{name} is named but does not exist"
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([\w-]+)", PAGE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target} is named but does not exist"
