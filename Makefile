# Two commands do all the set-up: `make bench` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RESULTS ?= results/laptop
PAPER ?= results/paper-on-a-laptop
DATA_ROOT ?=
# Test files at once; each takes up to 3 GB of memory.
JOBS ?= 2

.PHONY: bench paper paper-on-a-laptop test lint docs speed torture ui demo setup lock clean help

help:
	@echo "make bench   set up, then python benchmarks/run_all.py (laptop profile: about a quarter of an hour on 2 cores)"
	@echo "make paper   every table and figure of the paper, on the data sets found (DATA_ROOT=/data; ARGS=\"--budget 24h\"), resumable"
	@echo "make paper-on-a-laptop   every table and figure of the paper on the laptop data set: 2 to 3 hours on 2 cores, resumable"
	@echo "make test    set up, then the test suite"
	@echo "make lint    set up, then ruff and mypy"
	@echo "make docs    set up, then the documentation as a folder of pages, results/docs/index.html"
	@echo "make speed   set up, then every hot path beside a plain reference, as ratios (ARGS=\"sharing scoring\" for some)"
	@echo "make torture set up, then kill -9 a small grid 100 times at random moments and look whether anything was lost: half an hour"
	@echo "make ui      the MLflow UI over $(RESULTS), on 127.0.0.1:5000"
	@echo "make demo    draw, and see what each finished run of $(RESULTS) finds, on 127.0.0.1:5001 (ARGS=\"--gallery DIR\" for your own photos)"
	@echo "make setup   only the environment in $(VENV)"
	@echo "make lock    resolve pyproject.toml anew into requirements.lock"

bench: setup
	$(BIN)/python benchmarks/run_all.py $(ARGS)

paper: setup
	$(BIN)/python benchmarks/run_all.py --everything $(if $(DATA_ROOT),--data-root "$(DATA_ROOT)") $(ARGS)

# Less than --everything, for an evening: without the ledger's rows, and with one seed, hence no verdict, of the ablation's rows and of
# all controls but hard-conv. Two runs at once on one thread each use two cores better than one run on both. Status 1 says that some
# run failed: the rest goes on, and the page names it. The last step renders the report of all of them and logs it to MLflow.
GRID = --profile laptop --launcher processes --threads 1 --output $(PAPER) $(ARGS)
paper-on-a-laptop: setup
	@failed=0; step() { "$$@" || { code=$$?; [ $$code -eq 1 ] || exit $$code; failed=1; }; }; \
	step $(BIN)/python benchmarks/run_all.py $(GRID) --variants untrained main hard-conv --seeds 0 1 2 3 4 5 --no-report; \
	step $(BIN)/python benchmarks/digits.py --output $(PAPER)/extension; \
	step $(BIN)/python benchmarks/run_all.py $(GRID) --seeds 0 \
	  --variants main controls ablation methods coupling weights dimensions; \
	exit $$failed

test: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup
	$(BIN)/ruff check
	$(BIN)/mypy

docs: setup
	$(BIN)/mkdocs build --strict --quiet --site-dir results/docs

speed: setup
	$(BIN)/python benchmarks/speed/run.py $(ARGS)

torture: setup
	$(BIN)/python benchmarks/torture.py --output results/torture $(ARGS)

ui: setup
	@test -f "$(RESULTS)/mlflow.db" || { echo "no runs in $(RESULTS) yet; run make bench first, or make ui RESULTS=FOLDER"; exit 2; }
	store=$$($(BIN)/python benchmarks/moved.py "$(RESULTS)") || exit 2; \
	MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true $(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri "$$store"

demo: setup
	$(BIN)/python benchmarks/demo.py "$(RESULTS)" $(ARGS)

setup: $(VENV)/.complete

$(VENV)/.complete: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 or newer is needed: sudo apt install python3, or make PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing: sudo apt install python3-venv"; exit 2; }
	@test -x $(BIN)/python || echo "installing into $(VENV): a download of about 3 GB, once (the CUDA build of torch)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra test --extra lint --extra docs --extra demo --universal --python-version 3.11 --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --upgrade --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra test --extra ray --universal --python-version 3.11 --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links -c requirements.lock --output-file requirements-ray.lock

clean:
	rm -rf $(VENV) .pytest_cache *.egg-info
