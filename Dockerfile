# docker build -t selfsup .
# docker run --rm -it -v "$PWD/data:/selfsup/data" selfsup                      # make repro; add --gpus all
# PyTorch comes with CUDA, 4 of 6.7 GB. For CPUs alone name the index of its builds for them, which stands on its page "Get
# started": docker build --build-arg PIP_EXTRA_INDEX_URL=... -t selfsup .
ARG PYTHON=3.13
FROM python:${PYTHON}-slim
ARG PIP_EXTRA_INDEX_URL
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /selfsup
COPY . .
RUN make .venv/installed
CMD ["make", "repro"]
