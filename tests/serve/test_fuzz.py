"""Hostile requests to a running server: no 5xx, no crash, and the limits hold that keep its memory bounded."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

import pytest
from bench import fuzz_document, fuzz_sieges
from bench.fuzz_client import Address, Answer, Asked, Tally, answer_of
from bench.fuzz_images import file_of, whole
from bench.fuzz_requests import HOSTILE_METHODS, Requests, form_of, quote
from bench.fuzz_server import Canary, Server, fuzzed, served
from starlette.testclient import TestClient

from vitrail.core.settings import Preprocess
