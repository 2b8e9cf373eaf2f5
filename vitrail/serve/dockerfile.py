"""A Dockerfile that serves one model: `vitrail serve MODEL --dockerfile`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from vitrail import __version__
from vitrail.core.text import one_line, quoted

PORT = 8000

ALIVE = (
    "from urllib.request import ProxyHandler, build_opener; "  # a proxy of the container is not asked for itself
    f"build_opener(ProxyHandler({{}})).open('http://127.0.0.1:{PORT}/health/live', timeout=2)"
)

TEXT = """\
# Serves {model} on port {port}. In a folder with this file, and where CHECKOUT is the source folder of vitrail,
# which is not on the package index:
#   cp {source} {model}
#   cp CHECKOUT/constraints.txt .
#   pip wheel --no-deps CHECKOUT
#   docker build --tag vitrail-serve .
#   docker run --env VITRAIL_TOKEN --publish {port}:{port} --volume vitrail-cache:/cache vitrail-serve
# Requests need the token: "Authorization: Bearer" and the value of VITRAIL_TOKEN. The volume keeps what was measured.
FROM python:3.11-slim
COPY {wheel} constraints.txt /tmp/
# PyTorch for processors, 5 GB less; for GPUs, leave the extra index out.
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt \\
    --extra-index-url https://download.pytorch.org/whl/cpu "/tmp/{wheel}[serve]"
RUN useradd --uid 1000 --create-home vitrail && install --directory --owner vitrail /cache
COPY {model} /models/
ENV VITRAIL_CACHE=/cache PYTHONUNBUFFERED=1
USER 1000
WORKDIR /home/vitrail
EXPOSE {port}
HEALTHCHECK --start-period=5m --interval=10s --timeout=3s CMD {alive}
STOPSIGNAL SIGTERM
CMD {command}
"""


def dockerfile(model: Path, latency: str | None) -> str:
    """Return a Dockerfile that serves a run folder or a model file, within a latency such as 50ms if there is one.

    It is built in a folder that also holds the model, the wheel of this version and `constraints.txt`; its first lines
    are the commands for that. The server listens at every address, so VITRAIL_TOKEN must be set when it runs.
    """
    source, stem = (model / "model.safetensors", model.name) if model.is_dir() else (model, model.stem)
    # Spaces, $ and * have a meaning of their own in COPY.
    name = (re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or "model") + ".safetensors"
    words = ["vitrail", "serve", f"/models/{name}", "--host", "0.0.0.0", "--port", str(PORT)]
    return TEXT.format(
        source=one_line(quoted([source])),
        model=name,
        wheel=f"vitrail-{__version__}-py3-none-any.whl",
        port=PORT,
        alive=json.dumps(["python", "-c", ALIVE]),
        command=json.dumps([*words, "--latency", latency] if latency else words),
    )
