"""A certificate for this studio, signed by itself and made once by the program `openssl`."""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

from vitrail.core.errors import RunError

DAYS = 825
"""Days that it is valid: browsers refuse longer ones."""


class Certificate(NamedTuple):
    """The files of a certificate and its key."""

    file: Path
    key: Path

    def fingerprint(self) -> str:
        """Return its SHA-256, as browsers show it."""
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.file.read_text(encoding="ascii"))).hexdigest()
        return ":".join(digest[i : i + 2].upper() for i in range(0, len(digest), 2))


def certificate_of(folder: Path, host: str) -> Certificate:
    """Return the certificate in a folder, made for a host if there is none yet; only its owner can read the key.

    Raises:
        RunError: there is no openssl, or it fails.
    """
    made = Certificate(folder / "studio.crt", folder / "studio.pem")
    if made.file.is_file() and made.key.is_file():
        return made
    program = shutil.which("openssl")
    if program is None:
        raise RunError(
            "--tls needs the program openssl to make a certificate. Install it, or leave --tls out."
        )
    os.close(os.open(made.key, os.O_WRONLY | os.O_CREAT, 0o600))  # openssl writes into this private file
    words = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-sha256",
        "-days",
        str(DAYS),
        "-subj",
        "/CN=vitrail",
    ]
    names = ["-addext", f"subjectAltName=DNS:{host},DNS:localhost,IP:127.0.0.1"]
    done = subprocess.run(
        [program, *words, *names, "-keyout", str(made.key), "-out", str(made.file)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        made.key.unlink(missing_ok=True)
        raise RunError(f"openssl made no certificate: {done.stderr.strip()[-200:]} Leave --tls out.")
    return made
