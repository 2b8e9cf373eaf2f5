"""The Dockerfile that `vitrail serve MODEL --dockerfile` prints."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from vitrail import __version__
from vitrail.serve.dockerfile import dockerfile

KNOWN = {"FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "CMD"}
OPTIONS = {"--host", "--port", "--latency"}


def instructions(text: str) -> dict[str, list[str]]:
    """Return what a Dockerfile says, by instruction; comments are left out and continued lines joined."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found: dict[str, list[str]] = {}
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        word, _, rest = line.partition(" ")
        found.setdefault(word, []).append(rest)
    return found


def test_the_image_serves_the_model_and_gets_signals():
    found = instructions(dockerfile(Path("runs/trees.safetensors"), "50ms"))
    assert set(found) == KNOWN
    [command] = found["CMD"]
    program, verb, model, *words = json.loads(command)  # in exec form, so that the server itself gets SIGTERM
    assert (program, verb, model) == ("vitrail", "serve", "/models/trees.safetensors")
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert set(options) == OPTIONS
    assert options == {"--host": "0.0.0.0", "--port": found["EXPOSE"][0], "--latency": "50ms"}
    assert found["STOPSIGNAL"] == ["SIGTERM"]
    assert found["USER"] == ["1000"]


def test_no_latency_is_no_option():
    assert "--latency" not in dockerfile(Path("trees.safetensors"), None)


def test_what_is_copied_is_what_its_first_lines_fetch():
    text = dockerfile(Path("runs/trees.safetensors"), None)
    wheel = f"vitrail-{__version__}-py3-none-any.whl"
    copied = [shlex.split(one) for one in instructions(text)["COPY"]]
    assert copied == [[wheel, "constraints.txt", "/tmp/"], ["trees.safetensors", "/models/"]]
    [install, _] = instructions(text)["RUN"]
    assert f"/tmp/{wheel}[serve]" in shlex.split(install)
    assert "#   cp runs/trees.safetensors trees.safetensors\n" in text


def test_its_health_is_asked_with_python_alone():
    [check] = instructions(dockerfile(Path("trees.safetensors"), None))["HEALTHCHECK"]
    program, flag, code = json.loads(check.partition(" CMD ")[2])
    assert (program, flag) == ("python", "-c")
    compile(code, "HEALTHCHECK", "exec")
    assert "http://127.0.0.1:8000/health/live" in code


def test_the_token_comes_when_the_image_runs():
    text = dockerfile(Path("trees.safetensors"), None)
    assert "--env VITRAIL_TOKEN" in text
    assert not any("TOKEN" in one for rest in instructions(text).values() for one in rest)


def test_a_run_folder_gives_its_model_the_name_of_the_folder(tmp_path):
    run = tmp_path / "v1.5"
    run.mkdir()
    text = dockerfile(run, None)
    assert f"cp {run}/model.safetensors v1.5.safetensors\n" in text
    assert "/models/v1.5.safetensors" in text


@pytest.mark.parametrize("name", ["a b", "$HOME", "x*[0]", "ü", "--from=b", 'c"', "d\nRUN rm -rf /"])
def test_a_name_is_never_an_instruction(name):
    text = dockerfile(Path(f"{name}.safetensors"), None)
    found = instructions(text)
    assert {word: len(rest) for word, rest in found.items()} == {
        word: len(rest) for word, rest in instructions(dockerfile(Path("m.safetensors"), None)).items()
    }
    copied, _ = found["COPY"][1].split(" ")
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors", copied)
    assert json.loads(found["CMD"][0])[2] == f"/models/{copied}"
