# vitrim beside NVIDIA's TensorRT, from a checkout. The base decides the TensorRT, and with it the target:
#
#     docker build -f examples/docker/gpu.Dockerfile -t vitrim-gpu .
#     docker run --rm --gpus all -v "$PWD:/work" vitrim-gpu export quickstart -o out/ --set export.target=trt-10.3
#
# A Jetson takes a base of its JetPack, and no PyTorch: bundles are made elsewhere, and built there.
#
#     docker build -f examples/docker/gpu.Dockerfile --build-arg EXTRA=device \
#         --build-arg BASE=nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime -t vitrim-jetson .
#     docker run --rm --runtime nvidia -v "$PWD:/work" vitrim-jetson build out/
ARG BASE=nvcr.io/nvidia/tensorrt:24.08-py3
FROM ${BASE}
ARG EXTRA=export
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
COPY . /src
RUN python3 -m pip install "/src[${EXTRA},energy]" && rm -r /src
WORKDIR /work
ENTRYPOINT ["vitrim"]
