# The GPU set in a container. Not run by us yet: no container engine and no GPU were at hand.
#   docker build -t psyforge .
#   docker run --gpus all --ipc=host --ulimit memlock=-1 --rm -it \
#     -v "$PWD/runs:/psyforge/runs" -v "$PWD/models:/psyforge/models" psyforge \
#     bash launch/sft.sh recipe=psyche_r1 hardware=gpu8 run=NAME base_model=models/Qwen2.5-7B-Instruct
# The driver is the machine's own (580 or newer, docs/training.md); CUDA comes with the lock, so that the base needs none.
# --ipc=host: NCCL, Ray and the loaders share memory, and Docker's own 64 MB of it are too few.
FROM ubuntu:24.04
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3.12 python3.12-venv python3.12-dev gcc g++ git ca-certificates \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /psyforge
COPY . .
RUN PYTHON=python3.12 bash launch/install.sh gpu && rm -rf /root/.cache
ENV PATH=/psyforge/.venv/bin:$PATH
CMD ["bash"]
