"""The certificate of --tls: made once, private, and accepted by a TLS server."""

from __future__ import annotations

import shutil
import ssl

import pytest

from vitrail.studio.certificate import certificate_of


def test_a_certificate_is_made_once_and_its_key_is_private(tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl, which makes the certificate")
    made = certificate_of(tmp_path, "lab")
    mark = made.fingerprint()
    assert certificate_of(tmp_path, "lab").fingerprint() == mark
    assert len(mark) == 95
    assert made.key.stat().st_mode & 0o077 == 0
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made.file, made.key)
