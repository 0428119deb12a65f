# serve and test need nothing but Python 3.11 or newer; each makes the environment in .venv on its first run.
PYTHON ?= python3
DATA ?= ../shared/data
STORE ?= model_store/weights
# Networks that others trained and no package brings; see docs/evaluation.md.
export NRP_WEIGHTS ?= ../shared/models
BIN := .venv/bin

.PHONY: serve test check train train-background train-stop train-publish evaluate suite smoke bars bench \
  gpu-pack gpu gpu-rehearsal gpu-publish clean

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

# docs/results again, many hours on two cores; a run that was cut short goes on where it stopped. One part alone:
# SUITE_ARGS="--section transfer"; a rehearsal of a quarter of an hour, kept in runs/: SUITE_ARGS="--limit 20".
suite: .venv/.evaluate
	$(BIN)/nrp evaluate --suite imagenet --store $(STORE) --data $(DATA)/nips17 --data $(DATA)/camvid \
	  --data $(DATA)/coco-val128 $(SUITE_ARGS)

# Five minutes on small networks of our own, to see whether everything runs; its figures stay in runs/.
smoke: .venv/.evaluate
	$(BIN)/nrp evaluate --suite quick --card --store $(STORE) --model imagenette-resnet,camvid-segnet,bccd-retinanet \
	  --data $(DATA)/imagenette2-160/val --data $(DATA)/camvid --data $(DATA)/bccd

# What the bars need beside `make suite`: certificates, the calibrated suspicion, and what a defence costs.
bars: .venv/.evaluate
	$(BIN)/nrp evaluate certify nrp-smoothing --classifier imagenette-resnet --data $(DATA)/imagenette2-160/val \
	  --store $(STORE) --selection-fraction 0.25 --limit 30 --results docs/results --write-card
	$(BIN)/nrp evaluate suspicion nrp-fast --classifier imagenette-resnet,imagenette-mobilenet \
	  --data $(DATA)/imagenette2-160/val --store $(STORE) --results docs/results --write-card
	$(BIN)/nrp evaluate suspicion nrp-strong --classifier imagenette-resnet,imagenette-mobilenet --clean-limit 600 \
	  --file-limit 100 --eps 4,8 --data $(DATA)/imagenette2-160/val --store $(STORE) --results docs/results --write-card
	$(BIN)/nrp evaluate cost --purifier nrp-fast,nrp-strong --architecture nrp,nrp_resg --repeats 5 --store $(STORE)

# docs/results/serving.md again: half an hour on an idle machine. BENCH=--quick takes a minute and goes to out/bench.
bench: .venv/.bench
	$(BIN)/nrp bench --peers .venv/peers $(BENCH)

# Some minutes of a GPU, see docs/training.md: packed at home; used where PyTorch sees one; taken in at home again.
# GPU="--minutes 0 --aware-minutes 8" gives other steps the time; the rehearsal does all of it on the CPU, in 3 minutes.
VISIT ?= out/gpu-visit
gpu-pack: .venv/.evaluate
	$(BIN)/python -m training.gpu.pack $(DATA) --output out/gpu --store $(STORE) $(GPU)

gpu: .venv/.runtime
	$(BIN)/python -m training.gpu $(VISIT) --pack-folder out/gpu $(GPU)

gpu-rehearsal: .venv/.evaluate
	OMP_NUM_THREADS=1 $(BIN)/python -m training.gpu.rehearse $(DATA)

gpu-publish: .venv/.evaluate
	$(BIN)/python -m training.gpu.publish $(VISIT) --store $(STORE) --replace $(GPU)

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
