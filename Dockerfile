# docker build --tag styleloom . && docker run --rm --volume "$PWD/runs:/runs" styleloom train --cfg=demo --outdir=/runs
# With GPUs: docker run --gpus=all ..., and the driver's container toolkit on the host.
FROM python:3.11-slim-bookworm

# The compiler builds the ops at their first use; without it slower PyTorch code would run instead.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

# Empty for PyPI's torch; https://download.pytorch.org/whl/cpu where there is no GPU.
ARG TORCH_INDEX=""
WORKDIR /opt/styleloom
COPY constraints.txt requirements-nodeps.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch

COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt '.[all]' \
    && pip install --no-cache-dir --no-deps --requirement requirements-nodeps.txt

RUN useradd --create-home --uid 1000 styleloom && mkdir /runs && chown styleloom /runs
USER 1000
WORKDIR /runs
ENTRYPOINT ["styleloom"]
CMD ["--help"]
