# Everything runs in a virtual environment of its own, .venv, made on first use.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
# A test file a process, as many at a time as there are processors.
IN_PARALLEL := -n logical --maxprocesses 8 --dist loadfile

.PHONY: demo test test-slow lint format resources clean

demo: $(VENV)/installed            ## install, then show what the shipped checkpoint finds, reads and filters
	$(RUN) examples/run_demo.py

test: $(VENV)/installed-dev        ## install, then run the tests
	$(RUN) -m pytest $(IN_PARALLEL)

test-slow: $(VENV)/installed-dev   ## the tests that take minutes
	$(RUN) -m pytest $(IN_PARALLEL) -m slow

lint: $(VENV)/installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(VENV)/installed-dev
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

resources: $(VENV)/installed-dev   ## rebuild the packaged tables (needs Debian's fonts-arphic-uming, fonts-noto-cjk, fonts-liberation)
	$(RUN) conversion/build_resources.py

clean:
	rm -rf $(VENV) build dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python requirements.txt setup.py
	$(RUN) -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/bin/python requirements.txt requirements-dev.txt requirements-deepspeed.txt requirements-glyph.txt setup.py
	$(RUN) -m pip install --quiet -r requirements-dev.txt
	$(RUN) -m pip install --quiet setuptools wheel
	DS_BUILD_OPS=0 $(RUN) -m pip install --quiet --no-build-isolation -r requirements-deepspeed.txt
	$(RUN) -m pip install --quiet --no-deps --target $(VENV)/torchvision -r requirements-glyph.txt
	touch $@
