# vitrim on a CPU, from a checkout: `export` makes bundles, `device` checks, times and serves them without PyTorch.
#
#     docker build -f examples/docker/cpu.Dockerfile --target export -t vitrim .
#     docker run --rm -v "$PWD:/work" vitrim export quickstart -o out/
#     docker build -f examples/docker/cpu.Dockerfile --target device -t vitrim-device .
#     docker run --rm -v "$PWD:/work" vitrim-device check out/
#     docker run --rm -p 8000:8000 -v "$PWD:/work" --entrypoint python vitrim-device /opt/serve.py out/ --host 0.0.0.0
FROM python:3.12-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
COPY . /src
WORKDIR /work

FROM base AS device
RUN pip install '/src[device,openvino]' pillow && cp /src/examples/serve.py /opt/serve.py && rm -r /src
ENTRYPOINT ["vitrim"]

FROM base AS export
RUN pip install --index-url https://download.pytorch.org/whl/cpu torch torchvision \
 && pip install '/src[export,openvino]' && rm -r /src
ENTRYPOINT ["vitrim"]
