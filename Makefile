# Every target makes its own environment when there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LONG := $(wildcard tests/studio/ tests/flows/ tests/export/ tests/contracts/ tests/training/)
PARTS = $(LONG) $(filter-out $(LONG),$(wildcard tests/[a-z]*/))
QUICK := $(addprefix tests/,architecture/ core/ data/ evaluate/ explainers/ parity/ runs/ tasks/)

.PHONY: demo studio test check lint bench learn messages clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   the main job on real handwritten digits, ends with demo/demo.html"
	@echo "make studio images, training, results and predictions in the browser, in the folder studio"
	@echo "make test   all tests"
	@echo "make check  lint and the quick half of the tests, in less than four minutes"
	@echo "make lint   format, style, types, import ranks"
	@echo "make bench  the figures of docs/benchmarks.md, measured on this machine"
	@echo "make messages  the studio's catalogues of translations, and the texts that have none yet"
	@echo "make learn  every architecture, tiny, learns the digits to 95 %"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; name one: make PYTHON=python3.12 demo"; exit 1; }
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/vitrail demo --out demo

studio: $(READY)
	$(BIN)/vitrail studio studio

# A process a folder: a crash names its folder, and none inherits the threads and memory of a thousand other tests.
# Two run at once, one thread each, the long ones first. All folders run, whatever fails; each line says whose it is,
# and the last lines are the sums of all folders, the tests that failed, and the folders that did.
test: $(READY)
	@logs=$$(mktemp -d); printf '%s\n' $(PARTS) | OMP_NUM_THREADS=1 xargs -P 2 -I PART bash -o pipefail -c \
	"$(BIN)/python -u -m pytest PART 2>&1 | tee $$logs/\$$(basename PART) | sed -u 's|^|PART  |' || echo PART >> $$logs/.failed"; \
	tail -qn 1 $$logs/*; grep -hE '^(FAILED|ERROR) ' $$logs/*; names=$$(cat $$logs/.failed 2>/dev/null); rm -rf $$logs; \
	test -z "$$names" || { echo "Tests failed in:" $$names; exit 1; }

# What a change is tried with before `make test`: lint, and the folders whose tests are quick.
check:
	$(MAKE) lint
	$(MAKE) test PARTS="$(QUICK)"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m bench

learn: $(READY)
	$(BIN)/python -m bench.learn

messages: $(READY)
	$(BIN)/python -m bench.messages

clean:
	rm -rf demo
