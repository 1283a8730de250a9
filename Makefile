# `make demo` and `make test` do all set-up first: only python3 (>= 3.11), git, make and gcc are needed.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
LOCK := $(UV) pip compile pyproject.toml --all-extras --group dev --universal --generate-hashes --no-emit-index-url --no-header --quiet

.PHONY: demo test slow gpu lint format lock clean
demo: .venv/ready
	$(BIN)/vit demo

test: .venv/ready
	$(BIN)/python -m pytest -n auto -m "not slow and not gpu"

slow: .venv/ready
	$(BIN)/python -m pytest -n auto -m slow

gpu: .venv/ready
	$(BIN)/python -m pytest -m gpu

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(UV)
	$(LOCK) --upgrade -o requirements.lock

$(UV):
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check uv

.venv/ready: $(UV) requirements.lock pyproject.toml
	$(UV) pip sync --python $(BIN)/python --quiet requirements.lock
	$(UV) pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
