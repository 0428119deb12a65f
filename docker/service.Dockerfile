# The service with its shipped weights. The two pip lines are the Makefile's; a test holds them together.
# Build from the project's root: docker build --file docker/service.Dockerfile --tag nrp-service .
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /src
# Requirements first: a change of code does not install torch again.
COPY requirements/runtime.txt requirements/onnx.txt requirements/
RUN pip install --requirement requirements/onnx.txt

COPY pyproject.toml README.md LICENSE nrp.py ./
COPY model_store model_store
COPY robustness robustness
COPY service service
COPY training training
RUN pip install --no-deps --no-build-isolation .

RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin nrp
USER nrp
WORKDIR /
# The only place written to, for torchvision weights that NRP_CLASSIFIER may ask for; mount it to keep them.
ENV TORCH_HOME=/tmp/torch

EXPOSE 8000
# Live, not ready: a container that is still loading must not be killed for it.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:8000/health/live', timeout=4)"]
CMD ["nrp", "serve", "--host", "0.0.0.0"]
