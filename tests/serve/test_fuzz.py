"""Hostile requests to a running server: no 5xx, no crash, and the limits hold that keep its memory bounded."""

from __future__ import annotations
