# The demo at http://127.0.0.1:7860, on Linux; it can be opened on this machine alone:
#   docker build -t gen . && docker run --rm --network host gen
# The tests:
#   docker run --rm gen bash scripts/test.sh
FROM python:3.12-slim
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN apt-get update && apt-get install -y --no-install-recommends chromium npm && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /gen
COPY setup.cfg pyproject.toml ruff.toml constraints-oldest.txt mkdocs.yml .pre-commit-config.yaml ./
COPY README.md RESULTS.md CHANGELOG.md CONTRIBUTING.md CITATION.cff LICENSE Dockerfile .dockerignore ./
COPY .ci .ci
COPY gen gen
COPY configs configs
COPY checkpoints checkpoints
COPY data_prep data_prep
COPY scripts scripts
COPY docs docs
COPY tests tests
RUN . scripts/install.sh prep,demo && . scripts/install.sh test
CMD ["bash", "scripts/quickstart.sh", "--demo"]
