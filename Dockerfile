# The explorer with everything it serves; stores, models and what people write are mounted, never baked in.
# For GPUs: docker build --build-arg COMPUTE=cuda -t saevx:cuda .
FROM node:22.20.0-bookworm-slim AS modules
WORKDIR /app/frontend
COPY frontend/package.json frontend/package-lock.json ./
RUN npm ci --no-audit --no-fund

FROM python:3.11.14-slim-bookworm AS build
ARG COMPUTE=cpu
WORKDIR /app
RUN python -m venv /opt/saevx
ENV PATH=/opt/saevx/bin:$PATH
COPY requirements.lock torch.lock ./
# PyTorch's own index has the small build for CPUs; the build on PyPI brings CUDA.
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock \
    && case "$COMPUTE" in \
        cpu) pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu -r torch.lock ;; \
        cuda) pip install --no-cache-dir -r torch.lock ;; \
        *) echo "COMPUTE is cpu or cuda, not $COMPUTE" >&2; exit 1 ;; \
    esac
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY docs/method.md ./docs/
COPY precompute ./precompute
COPY backend ./backend
COPY frontend ./frontend
COPY --from=modules /app/frontend/node_modules ./frontend/node_modules
RUN pip install --no-cache-dir --no-deps .

FROM python:3.11.14-slim-bookworm
RUN useradd --create-home --uid 1000 saevx && install -d -o saevx -g saevx /data
COPY --from=build /opt/saevx /opt/saevx
# Caches of libraries go to the volume too: the rest of the file system may be read-only.
ENV PATH=/opt/saevx/bin:$PATH PYTHONUNBUFFERED=1 HOME=/data SAEVX_CACHE=/data/cache HF_HOME=/data/huggingface
USER saevx
WORKDIR /data
VOLUME /data
EXPOSE 8000
# The first start makes the demo, which takes some minutes.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30m CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["saevx"]
CMD ["demo", "--dir", "/data/demo", "--host", "0.0.0.0", "--port", "8000"]
