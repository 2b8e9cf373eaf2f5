"""The house keeps its own rules."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vitrail
from vitrail.core import catalog

ROOT = Path(vitrail.__file__).parent
PAGES = sorted(ROOT.rglob("*.py"))


def functions(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_functions_are_short():
    """About forty lines of code; the docstring, which a verb's help is made of, does not count."""
    long = []
    for path in PAGES:
        for node in functions(path):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > 40:
                long.append(f"{path.relative_to(ROOT)}:{node.name} {lines}")
    assert not long


def test_signatures_are_narrow_and_have_no_tunnels():
    wrong = []
    for path in PAGES:
        for node in functions(path):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if len([a for a in arguments if a.arg != "self"]) > 8 or node.args.kwarg:
                wrong.append(f"{path.relative_to(ROOT)}:{node.name}")
    assert not wrong


@pytest.fixture
def make(tmp_path):
    """Call our Makefile on a project of three test folders, whose tools only write down what they are asked for."""
    if shutil.which("make") is None:
        pytest.skip("there is no make here")
    if not (ROOT.parent / "Makefile").is_file():
        pytest.skip("an installed package has no Makefile")
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name in ("python", "ruff", "mypy", "lint-imports"):
        tool = tools / name
        tool.write_text(
            '#!/bin/sh\necho "$(basename "$0") $*" >> asked\ncase "$*" in *$BROKEN*) exit 1;; esac\n'
        )
        tool.chmod(0o755)
    for name in ("core", "data", "tasks"):
        (tmp_path / "tests" / name).mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    shutil.copy(ROOT.parent / "Makefile", tmp_path)
    (tools.parent / ".ready").touch()

    def call(*words, broken):
        environment = {**os.environ, "BROKEN": broken, "MAKEFLAGS": ""}
        done = subprocess.run(["make", *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        return done, (tmp_path / "asked").read_text().splitlines()

    return call


def test_make_test_runs_every_folder_and_names_those_that_failed(make):
    done, asked = make("test", broken="tests/core")
    assert asked == [f"python -m pytest tests/{name}/" for name in ("core", "data", "tasks")]
    assert done.returncode != 0
    assert "Tests failed in: tests/core/" in done.stdout
    assert make("test", broken="nothing")[0].returncode == 0


def test_make_check_is_lint_and_quick_folders_that_there_are(make):
    done, asked = make("check", broken="nothing")
    assert done.returncode == 0
    assert "mypy " in asked
    parts = [line.split()[-1] for line in asked if line.startswith("python -m pytest")]
    assert parts
    assert all((ROOT.parent / part).is_dir() for part in parts)
    for broken in ("format", parts[0]):
        assert make("check", broken=broken)[0].returncode != 0


def test_only_one_page_reads_the_environment():
    readers = [p for p in PAGES if "os.environ" in p.read_text(encoding="utf-8")]
    assert readers == [ROOT / "core" / "paths.py"]


def test_importing_the_package_loads_nothing_heavy():
    script = (
        "import sys, vitrail; print([m for m in ('torch', 'numpy', 'PIL', 'pydantic') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_layers_and_models_need_torch_alone():
    script = (
        "import sys, vitrail.models.vit, vitrail.layers.attention\n"
        "print([m for m in ('timm', 'torchvision', 'transformers', 'sklearn', 'polars') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_public_names_are_there():
    assert sorted(vitrail.__all__) == dir(vitrail)
    for name in vitrail.__all__:
        assert getattr(vitrail, name) is not None
    assert callable(vitrail.train)
    assert callable(vitrail.explain)
    with pytest.raises(AttributeError):
        vitrail.nothing  # noqa: B018


def test_the_catalog_tells_the_truth():
    from vitrail.models.create import presets_of

    for family, names in catalog.PRESETS.items():
        assert tuple(presets_of(family)) == names
    for kind, table in catalog.KINDS.items():
        for name in table:
            assert catalog.load(kind, name)


def test_every_verb_has_its_page_and_a_json_answer():
    from vitrail.cli.help import app_of, option_names
    from vitrail.cli.verbs import VERBS

    for verb in VERBS:
        assert "json" in option_names(app_of(verb)), verb


def test_truths_are_known_to_data_and_tasks_alone():
    """A label is one kind of truth: elsewhere a row's truth is told by targets, and names by the header."""
    known = re.compile(r"\brow\.labels?\b|\bmanifest\.(classes|multi)\b")
    outside = [p for p in PAGES if p.relative_to(ROOT).parts[0] not in {"data", "tasks"}]
    assert not [str(p.relative_to(ROOT)) for p in outside if known.search(p.read_text(encoding="utf-8"))]


def test_how_tasks_take_truths_and_settings_needs_no_torch():
    pages = [
        p for p in PAGES if p.parent.parent == ROOT / "tasks" and p.name in {"targets.py", "settings.py"}
    ]
    modules = ["vitrail." + ".".join(p.relative_to(ROOT).with_suffix("").parts) for p in pages]
    assert len(modules) >= 5
    script = f"import sys, vitrail.data.prepare, {', '.join(modules)}; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"
