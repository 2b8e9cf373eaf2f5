"""Every published figure of docs/benchmarks.md is measured by a script of this folder."""
