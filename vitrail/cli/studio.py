"""vitrail studio."""

from __future__ import annotations

UNENCRYPTED = (
    "Other machines can reach this studio, and the connection is not encrypted: whoever has the link sees the images. "
    "Use it in a network that you trust, or add --tls."
)


def studio(
    folder: str = ".",
    /,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    root_path: str = "",
    allow: str = "",
    tls: bool = False,
    browser: bool = True,
    json: bool = False,
) -> int:
    """Open the studio in the browser: images, training, results and predictions without code, on this machine.

    Everything stays in one folder: data/ holds uploaded images, runs/ the models, also those that were trained from a
    terminal there. The link that is printed holds the key. Trainings go on when the studio or the page is closed.

        vitrail studio                       in the present folder
        vitrail studio projects/ --port 9000
        vitrail studio --host 0.0.0.0 --no-browser     for other machines of a network that you trust

    Parameters
    ----------
    folder
        the folder of the studio, made if there is none
    host
        the address to listen at; others than 127.0.0.1 can be reached by other machines
    port
        the port; by default 8420, or a free one
    root_path
        the prefix under which a proxy shows the studio, such as /studio
    allow
        other host names under which it may be opened, such as that of a proxy: a.example,b.example
    tls
        encrypt the connection, with a certificate that the studio signs itself: the camera of a phone needs it
    browser
        open the page in the browser
    json
        print one JSON value, for programs
    """
    import sys
    from pathlib import Path

    from vitrail.cli.output import print_json, say
    from vitrail.core.environment import expanded
    from vitrail.core.errors import RunError

    try:
        from vitrail.studio.certificate import certificate_of
        from vitrail.studio.serve import Address, serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("vitrail"):
            raise
        raise RunError(f"The studio needs {error.name}: pip install 'vitrail[studio]'") from error
    from vitrail.studio.workspace import Workspace

    workspace = Workspace(Path(expanded(folder)).resolve())
    names = tuple(name.strip() for name in allow.split(",") if name.strip())
    below = "/" + root_path.strip("/") if root_path.strip("/") else ""
    address = Address(host, port, below, names, tls)
    if address.open_to_others and not tls:
        say(UNENCRYPTED)

    def ready(link: str) -> None:
        if json:
            print_json({"link": link, "folder": str(workspace.folder)})
        else:
            if tls:
                mark = certificate_of(workspace.own, "").fingerprint()
                say(f"The browser warns once of a certificate that nobody else signed. Its SHA-256 is {mark}")
            say(f"The studio of {workspace.folder} is open; Ctrl-C ends it, and trainings go on.")
            sys.stdout.write(link + "\n")
        sys.stdout.flush()
        if browser:
            _open(link)

    serve(workspace, address, ready)
    return 0


def _open(link: str) -> None:
    """Open the link in the browser of this machine, without waiting for it."""
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()
