"""Hostile requests from a seed, for a server of ours: images, forms, JSON, tokens, hosts, methods, broken HTTP."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from bench.fuzz_client import Address, Asked
from bench.fuzz_images import FORMATS, file_of, mutants, whole

ODD = ("", " ", "\x00", "é", "’", "%00", "../../etc/passwd", "{{7*7}}", "${jndi:ldap://x}", "a" * 5000, "\u202egpj",
       "-1", "1e400", "nan", "inf", "null", "[]", "'; drop table", "<script>")  # fmt: skip
HOSTILE_METHODS = ("os:system", "subprocess:run", "builtins:exec", "os:_exit", "vitrail.cli.main:main", "../relevance",
                   "relevance\x00", "antigravity", "this", "relevance" * 5)  # fmt: skip
HOSTS = ("evil.example", "localhost.evil.example", "127.0.0.1.nip.io:80", "", "[::1", "localhost:99999999999",
         "a" * 3000, "localhost\x0bx", "0", "user@localhost", "localhost:", ":", "[::1]:0",
         "127.0.0.1:80:80")  # fmt: skip
PATHS = ("/predict", "/explain", "/card", "/metrics", "/v2", "/health/ready", "/openapi.json", "/", "/static/x",
         "/static/../app.py", "/static/%2e%2e%2fapp.py", "//", "/%ff%fe", "/predict/%00", "/predict/a/b",
         "/v2/models/x/infer", "/v2/models/%2e%2e/ready", "*", "http://other.example/predict")  # fmt: skip
NEVER = (400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 421, 422, 431, 429)


class Requests:
    """Makes requests to an address; `model` is the name of the model there."""

    def __init__(self, address: Address, model: str, seed: int = 0) -> None:
        self.at, self.model, self.rng = address, model, Random(seed)
        self._mutants = mutants(self.rng)
        self._small = [file_of(whole(number), kind) for number, kind in enumerate(FORMATS)]

    def __iter__(self) -> Iterator[Asked]:
        makers: tuple[tuple[Callable[[], Asked], int], ...] = (
            (self.image, 40), (self.form, 8), (self.many, 6), (self.options, 8), (self.token, 6), (self.host, 4),
            (self.broken, 8), (self.deep, 3), (self.protocol, 10), (self.hung_up, 4), (self.explained, 2),
            (self.elsewhere, 5),
        )  # fmt: skip
        ways, weights = zip(*makers, strict=True)
        while True:
            yield self.rng.choices(ways, weights)[0]()

    def image(self) -> Asked:
        """Return a broken image as raw bytes, under a type that it may not have."""
        name, data = next(self._mutants)
        kind = self.rng.choice(
            ("image/jpeg", "image/png", "application/octet-stream", "text/html", "", "x" * 300)
        )
        return Asked(name, self.at.post("/predict", data, kind))

    def form(self) -> Asked:
        """Return a form, often with a part that is broken."""
        files = [next(self._mutants)[1] for _ in range(self.rng.choice((0, 1, 3)))] + [self._one()]
        body = form_of(files, self.rng.choice(("a.jpg", *ODD)))
        if self.rng.random() < 0.5:
            at = self.rng.randrange(len(body))
            body = body[:at] + self.rng.randbytes(4) + body[at + self.rng.choice((0, 4)) :]
        kinds = ("multipart/form-data; boundary=fuzz", "multipart/form-data", "multipart/form-data; boundary=",
                 f"multipart/form-data; boundary={'x' * 900}", "application/x-www-form-urlencoded")  # fmt: skip
        return Asked("form", self.at.post("/predict", body, self.rng.choices(kinds, (6, 1, 1, 1, 1))[0]))

    def many(self) -> Asked:
        """Return JSON whose images are odd values."""
        values: list[Any] = [self._text(), "", "====", "data:,", {"data": self._text()}, {"data": 1}, {}, None, 7, [],
                             {"url": "http://169.254.169.254/"}, {"url": "file:///etc/passwd"}, {"name": "x"},
                             {"data": self._text(), "name": self.rng.choice(ODD)}, "\ud800",
                             {"url": "http://[", "name": "\ud800"}]  # fmt: skip
        given: Any = {"images": [self.rng.choice(values) for _ in range(self.rng.choice((0, 1, 2, 40)))]}
        if self.rng.random() < 0.2:
            given = self.rng.choice((None, [], 1, "x", {"images": None}, {"images": {}}, {"picture": []}))
        body = json.dumps(given).encode()
        if self.rng.random() < 0.3:
            body = body[: self.rng.randrange(1, len(body))] + self.rng.randbytes(self.rng.choice((0, 3)))
        return Asked("JSON", self.at.post("/predict", body, "application/json"))

    def options(self) -> Asked:
        """Return an image with odd options."""
        names = ("point", "threshold", "sets", "each_class", "files", "unknown", "point[]")
        query = "&".join(
            f"{self.rng.choice(names)}={self._quoted()}" for _ in range(self.rng.choice((1, 2, 9)))
        )
        limit = self.rng.choice(("1", "0", "-5", "600001", "nan", "inf", "1e-300", "x", "5000", "0.001", "é"))
        request = self.at.post(f"/predict?{query}", self._one(), "image/jpeg", f"X-Deadline-Ms: {limit}")
        return Asked("options", request)

    def token(self) -> Asked:
        """Return a request whose token is not right."""
        right = self.at.token or "token"
        values = ("Bearer", "Bearer ", f"Bearer {right}x", f"Bearer {right[:-1]}", f"Basic {right}", right, "Bearer é",
                  f"bearer  x {right}", "Bearer " + "x" * 5000, "Bearer \x7f", f"Digest {right}")  # fmt: skip
        fields = [f"Authorization: {self.rng.choice(values)}"] if self.rng.random() < 0.8 else []
        line = self.rng.choice(("GET /card", "GET /metrics", "GET /v2", "GET /predict", "GET /nothing"))
        request = self.at.head(line, *fields, "Connection: close", token=False)
        return Asked("token", request, (400, 401) if self.at.token else ())

    def host(self) -> Asked:
        """Return a request for another host."""
        fields = "".join(f"Host: {self.rng.choice(HOSTS)}\r\n" for _ in range(self.rng.choice((0, 1, 1, 2))))
        shown = f"Authorization: Bearer {self.at.token}\r\n" if self.at.token else ""
        request = f"GET {self.rng.choice(PATHS)} HTTP/1.1\r\n{fields}{shown}Connection: close\r\n\r\n"
        return Asked("host", request.encode())

    def broken(self) -> Asked:
        """Return what is hardly HTTP; the connection may end without an answer, but never without end."""
        whole_ = self.at.post("/predict", self._one())
        end = whole_.index(b"\r\n\r\n")
        head = bytearray(whole_[:end])
        ways: list[bytes] = [
                self.rng.randbytes(200) + b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 400, b"\x16\x03\x01" * 30,
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\r\n\r\n", b"GET " + b"/a" * 40_000 + b" HTTP/1.1\r\n\r\n",
                self.at.head("POST /predict", "Content-Length: -1"),
                self.at.head("POST /predict", "Content-Length: 1e3"),
                self.at.head("POST /predict", "Content-Length: 5", "Content-Length: 6"),
                self.at.head("POST /predict", "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
                self.at.head("POST /predict", "Transfer-Encoding: chunked") + b"fffffffffffffffff\r\nx",
                self.at.head("POST /predict", "Transfer-Encoding: chunked") + b"zz\r\nx\r\n",
                self.at.head("GET /card", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: x"),
                self.at.head("GET /card", *(f"X-{n}: y" for n in range(2000))),
                self.at.head("GET /card", "X: a\x00b"), self.at.head("GET /card", " folded: x")]  # fmt: skip
        for _ in range(self.rng.choice((1, 5))):
            head[self.rng.randrange(len(head))] = self.rng.randrange(256)
        ways += [bytes(head) + whole_[end:]] * 8
        return Asked("broken HTTP", self.rng.choice(ways), (0, -1, 200, *NEVER))

    def deep(self) -> Asked:
        """Return JSON that is nested too deep, or has numbers that are too long."""
        deep = self.rng.choice((500, 5000, 100_000))
        ways = (b"[" * deep, b'{"images":' * deep, b'{"images":[' + b"[" * deep + b"]" * deep + b"]}",
                b'{"images":[' + b"9" * deep + b"]}", b'{"images":[1e99999, NaN, -Infinity]}',
                b'{"inputs":[' + b'{"parameters":' * deep + b"1" + b"}" * deep + b"]}")  # fmt: skip
        path = self.rng.choice(("/predict", f"/v2/models/{self.model}/infer", "/explain"))
        return Asked("deep JSON", self.at.post(path, self.rng.choice(ways), "application/json"), (422, 429))

    def protocol(self) -> Asked:
        """Return a request of the Open Inference Protocol that is wrong somewhere."""
        rng = self.rng
        shape: Any = rng.choice(([1], [0], [-1], [1, 48, 48, 3], [2**40, 2**40, 2**40, 3], [1, 0, 48, 3], [48, 48, 3],
                            [], [1, 2, 3, 4, 5], ["1"], [1.5], None, [1, 10**30, 1, 3], [True]))  # fmt: skip
        data: Any = rng.choice(([self._text()], [0] * 6912, [256], [-1], [None], [[1, 2], [3]], "x", {}, [1e400], [],
                           None, [self._text()] * 200, ["é"]))  # fmt: skip
        tensor = {"name": rng.choice(("image", *ODD[:6])), "datatype": rng.choice(("BYTES", "UINT8", "FP32", 5)),
                  "shape": shape, "data": data}  # fmt: skip
        tail, fields = b"", []
        if rng.random() < 0.5:
            del tensor["data"]
            sizes = (0, 4, 6912, -1, 2**63, 1.5, True, "4", None)
            tensor["parameters"] = {"binary_data_size": rng.choice(sizes)}
            tail = rng.choice(
                (bytes(6912), struct.pack("<I", 2**32 - 1), struct.pack("<I", 0) * 500, b"", b"\x01")
            )
        parameters = {
            rng.choice(("timeout", "point", "x")): rng.choice((1, -1, 1e400, "x", None, True, [], 10**400))
        }
        given = {"id": rng.choice(("a", 5, None, "x" * 9000)), "inputs": [tensor] * rng.choice((1, 1, 1, 0, 2)),
                 "parameters": parameters}  # fmt: skip
        body = json.dumps(given).encode()
        if tail or rng.random() < 0.3:
            length = rng.choice(
                (str(len(body)),) * 3 + ("0", "-1", "9" * 30, "x", str(len(body) - 1), "²", "9" * 5000)
            )
            fields.append(f"Inference-Header-Content-Length: {length}")
        model = rng.choice((self.model, self.model, self.model, "other", "%2e%2e", "%00"))
        return Asked(
            "protocol", self.at.post(f"/v2/models/{model}/infer", body + tail, "application/json", *fields)
        )

    def hung_up(self) -> Asked:
        """Return a request whose client goes in the middle, or after the last byte."""
        data = self.at.post("/predict", self._one())
        return Asked(
            "hung up", data[: self.rng.choice((len(data), self.rng.randrange(len(data))))], hang_up=True
        )

    def explained(self) -> Asked:
        """Return a request for an explanation by something that is no method, mostly."""
        method = self.rng.choice(HOSTILE_METHODS)
        query = self.rng.choice(
            (f"method={quote(method)}", f"of={self._quoted()}", f"method=relevance&point={self._quoted()}")
        )
        return Asked("explanation", self.at.post(f"/explain?{query}", self._one()))

    def elsewhere(self) -> Asked:
        """Return a method that an address may not know."""
        methods = (
            "GET",
            "HEAD",
            "OPTIONS",
            "DELETE",
            "PATCH",
            "TRACE",
            "PUT",
            "POST",
            "PROPFIND",
            "M-SEARCH",
        )
        line = f"{self.rng.choice(methods)} {self.rng.choice(PATHS)}"
        return Asked("elsewhere", self.at.head(line, "Content-Length: 0", "Connection: close"))

    def _one(self) -> bytes:
        return self.rng.choice(self._small)

    def _text(self) -> str:
        return base64.b64encode(self._one()).decode()

    def _quoted(self) -> str:
        return quote(self.rng.choice(ODD))


def form_of(files: list[bytes], name: str = "a.jpg") -> bytes:
    """Return a form with files, whose boundary is `fuzz`."""
    head = f'--fuzz\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    return b"".join(head + file + b"\r\n" for file in files) + b"--fuzz--\r\n"


def quote(text: str) -> str:
    """Return a text as a part of a query."""
    from urllib.parse import quote as quoted

    return quoted(text, safe="")
