"""The house keeps its own rules."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import vitrail
from vitrail.core import catalog

ROOT = Path(vitrail.__file__).parent
TESTS = Path(__file__).parents[1]
PAGES = sorted(ROOT.rglob("*.py"))


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path):
    for node in ast.walk(tree(path)):
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
    assert sorted(asked) == [f"python -u -m pytest tests/{name}/" for name in ("core", "data", "tasks")]
    assert done.returncode != 0
    assert "Tests failed in: tests/core/" in done.stdout
    assert make("test", broken="nothing")[0].returncode == 0


def test_make_check_is_lint_and_quick_folders_that_there_are(make):
    done, asked = make("check", broken="nothing")
    assert done.returncode == 0
    assert "mypy " in asked
    parts = [line.split()[-1] for line in asked if line.startswith("python -u -m pytest")]
    assert parts
    assert all((ROOT.parent / part).is_dir() for part in parts)
    for broken in ("format", parts[0]):
        assert make("check", broken=broken)[0].returncode != 0


def test_only_one_page_reads_the_environment():
    readers = [p for p in PAGES if "os.environ" in p.read_text(encoding="utf-8")]
    assert readers == [ROOT / "core" / "environment.py"]


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
    from vitrail.models.factory import presets_of

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


# What the rooms of tasks, data, models and weights know, and nobody else does


OWNERS = ("tasks", "data", "models", "weights")


def elsewhere():
    """Our pages outside the rooms that may know what a task, a truth or a family is; the catalog names them all."""
    catalogued = ROOT / "core" / "catalog.py"
    return [p for p in PAGES if p.relative_to(ROOT).parts[0] not in OWNERS and p != catalogued]


def told(find, pages):
    """Return file:line of whatever `find` yields in the trees of these pages."""
    return [f"{p.relative_to(ROOT).as_posix()}:{node.lineno}" for p in pages for node in find(tree(p))]


def name_of(node):
    """Return the last part of a dotted name: of `task.settings` settings."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@cache
def kinds_of_tasks_and_heads():
    """Return the names of the classes of single tasks, and of heads; `Task`, `Targets` and `Head` are for everybody."""
    single = [p for p in PAGES if p.parent.parent == ROOT / "tasks"]
    pages = [*single, ROOT / "layers" / "heads.py"]
    return {n.name for p in pages for n in ast.walk(tree(p)) if isinstance(n, ast.ClassDef)} - {"Head"}


def checks_of_kind(module):
    kinds = kinds_of_tasks_and_heads()
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and name_of(node.func) in {"isinstance", "issubclass"}:
            if kinds & {name_of(part) for part in ast.walk(node.args[1])}:
                yield node
        elif isinstance(node, ast.MatchClass) and name_of(node.cls) in kinds:
            yield node.cls


def temperatures(module):
    """Yield where the temperature of a classifier is read off the settings of a task, whichever it is."""
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and (name_of(node.value), node.attr) == (
            "settings",
            "temperature",
        ):
            yield node


def labels(module):
    """Yield where a row has a label, or a manifest classes: a label is one kind of truth."""
    known = {("row", "label"), ("row", "labels"), ("manifest", "classes"), ("manifest", "multi")}
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and (name_of(node.value), node.attr) in known:
            yield node


def checks_of_family(module):
    """Yield comparisons with a family of networks: an encoder, or its spec, says what one wants to know."""
    families = set(catalog.ARCHITECTURES)
    for node in ast.walk(module):
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            words = {
                part.value for side in sides for part in ast.walk(side) if isinstance(part, ast.Constant)
            }
            if "family" in map(name_of, sides) or families & words:
                yield node
        elif isinstance(node, ast.Match) and name_of(node.subject) == "family":
            yield node
        elif isinstance(node, ast.Call) and name_of(node.func) == "startswith":
            yield from (one for one in node.args if isinstance(one, ast.Constant) and one.value in families)


@pytest.mark.parametrize("find", [checks_of_kind, temperatures, labels, checks_of_family])
def test_only_tasks_data_models_and_weights_know(find):
    assert told(find, elsewhere()) == []


@pytest.mark.parametrize(
    ("find", "line"),
    [
        (checks_of_kind, "isinstance(predictor.task, Task | classify.Classify)"),
        (checks_of_kind, "issubclass(kind, (PooledHead, Head))"),
        (checks_of_kind, "match head:\n    case DistilledHead():\n        pass"),
        (temperatures, "predictor.task.settings.temperature"),
        (labels, "[row.label for row in rows]"),
        (labels, "len(prepared.manifest.classes)"),
        (checks_of_family, "encoder.config.family == 'timm'"),
        (checks_of_family, "family not in PLAIN"),
        (checks_of_family, "kind in ('vit', 'dinov2')"),
        (checks_of_family, "match config.family:\n    case 'swin':\n        pass"),
        (checks_of_family, "name.startswith('supervit')"),
    ],
)
def test_what_only_they_may_know_is_found(find, line):
    assert len(list(find(ast.parse(line)))) == 1


# One way through a network


APART = {
    "explainers/attention_maps.py": "attention is recorded",
    "explainers/attention_viewer.py": "attention is recorded",
    "explainers/network_analysis.py": "attention is recorded",
    "explainers/walkthrough.py": "compared with the steps of one image, which it shows",
    "explainers/rollout.py": "attention is recorded",
    "explainers/permutation_test.py": "in float64, which the one way rounds",
    "explainers/target.py": "with gradients",
    "export/library_folders.py": "a network of transformers with our signature",
    "export/traced_model.py": "traced",
    "benchmark/peers.py": "timed, nothing else",
    "infer/bf16_check.py": "the features of two precisions are compared",
    "infer/reparameterize.py": "two networks are compared on noise",
    "infer/openvino_backend.py": "traced",
    "robustness/attack_target.py": "with gradients",
    "runs/network.py": "the network itself",
    "runs/run_network.py": "the one way",
    "training/elastic_recipe.py": "on the meta device, which computes nothing",
    "training/loop.py": "a step of a training",
    "training/step_timing.py": "a step of a training, measured",
    "training/distillation.py": "inside a step of a training, in its precision",
}
"""Pages that run a network themselves, and why."""

RUN = {"network", "encoder", "twin", "training_loss"}
"""What networks are called where they are called."""


def runs_of_networks(module):
    """Yield calls of a network, or of what a task answers with one, but for those that `run_network` makes."""
    handed = {
        name_of(node.args[0])
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and name_of(node.func) == "run_network"
    }
    inside = [n for n in ast.walk(module) if isinstance(n, ast.FunctionDef) and n.name in handed]
    spared = {id(part) for function in inside for part in ast.walk(function)}
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and id(node) not in spared:
            asked = isinstance(node.func, ast.Attribute) and node.func.attr == "answer"
            if asked or name_of(node.func) in RUN:
                yield node


def test_batches_go_through_networks_in_one_place():
    rooms = {"tasks", "models", "layers", "weights"}
    pages = [p for p in PAGES if p.relative_to(ROOT).parts[0] not in rooms]
    found = {where.partition(":")[0] for where in told(runs_of_networks, pages)}
    assert found == set(APART)


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("outputs = [network(batch.inputs) for batch in batches]", 1),
        ("output = self.task.answer(self.network, batch, ask)", 1),
        ("def compute(batch):\n    return network(batch)\nrun_network(compute, batches)", 0),
        ("run_network(answering(task, network), batches)", 0),
    ],
)
def test_networks_that_are_run_are_found(line, count):
    assert len(list(runs_of_networks(ast.parse(line)))) == count


def test_how_tasks_take_truths_and_settings_needs_no_torch():
    pages = [
        p for p in PAGES if p.parent.parent == ROOT / "tasks" and p.name in {"targets.py", "settings.py"}
    ]
    modules = ["vitrail." + ".".join(p.relative_to(ROOT).with_suffix("").parts) for p in pages]
    assert len(modules) >= 5
    script = f"import sys, vitrail.data.prepare, {', '.join(modules)}; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"


NO_NAMES = {
    "a participle says that something happened, not what it is": """
        asked begun begin dialled doubts exported faithful found frozen given held_back keeping killed known listed
        measuring opened own proving said seen settled shown stopping streamed taught told translated wrapped
    """,
    "an adverb or a riddle": "ahead dry fast fresh hover inside live plain rim there twins whole",
    "says nothing of what it holds": "base_utils common funcs helpers misc stuff tools util utils",
}
"""Why a module is not called so."""


@pytest.mark.parametrize("why", NO_NAMES)
def test_modules_are_called_by_the_noun_of_what_they_hold(why):
    assert not [str(path.relative_to(ROOT)) for path in PAGES if path.stem in NO_NAMES[why].split()]


LONG = {
    "core/catalog.py": "the names of everything that is loaded by name, and where it is",
    "data/decode.py": "from the bytes of an image to its pixels, for every format and mode",
    "data/layouts/mask_files.py": "what lies in the file of a mask",
    "data/layouts/mask_pairs.py": "which mask belongs to which image",
    "data/layouts/masks.py": "the layout of images with files of masks",
    "data/layouts/outlines.py": "the layouts of outlines, of several labelling tools",
    "data/layouts/table.py": "the layout of a table of labels",
    "data/table_files.py": "tables of every file format as columns of words",
    "data/tiff.py": "the samples of a TIFF file",
    "data/view.py": "the geometry of a view of an image, and its truth in the same view",
    "export/traced_model.py": "a whole model as one traceable module",
    "infer/predictor.py": "a trained model that answers",
    "models/timm_wrapper.py": "any network of timm as an encoder",
    "plots/images.py": "drawings on images",
    "studio/sentence_list.py": "the sentences that pages show in another language",
    "tasks/base.py": "what a task is",
    "tasks/classify/evaluation.py": "the scores of one label an image",
    "tasks/detect/object_task.py": "what the tasks of objects have in common",
    "tasks/result.py": "what reports lay out, as data",
    "tasks/segment/targets.py": "masks as truths of a training",
    "tasks/segment/task.py": "the task of segmentation",
    "training/fit.py": "the wiring of a training, new or resumed",
    "training/loop.py": "the steps of a training",
    "training/resolve_recipe.py": "from options and images to a complete recipe",
    "weights/hub_folder.py": "a folder in the layout of a hub",
    "weights/infer_config.py": "from the shapes of tensors to the settings of a network",
}
"""Files over 300 lines → the one thing that each holds."""


def test_long_files_hold_one_thing():
    long = {
        str(path.relative_to(ROOT))
        for path in PAGES
        if len(path.read_text(encoding="utf-8").splitlines()) > 300
    }
    assert long == set(LONG)


def test_tests_replace_nothing_private():
    """What a test must put something else in the place of has a name without an underscore."""
    private = []
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(tree(path)):
            if not (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "setattr"
            ):
                continue
            names = [
                one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)
            ]
            if names and names[0].rpartition(".")[2].startswith("_") and not names[0].endswith("__"):
                private.append(f"{path.relative_to(TESTS)}:{node.lineno} {names[0]}")
    assert not private
