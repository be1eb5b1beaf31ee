# The explorer with everything it serves; stores, models and what people write are mounted, never baked in.
FROM node:22-slim AS modules
WORKDIR /app/frontend
COPY frontend/package.json frontend/package-lock.json ./
RUN npm ci --no-audit --no-fund

FROM python:3.11-slim
# For GPUs: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /app
RUN useradd --create-home --uid 1000 saevx
COPY requirements.lock torch.lock ./
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock \
    && pip install --no-cache-dir --index-url "$TORCH_INDEX" -r torch.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY precompute ./precompute
COPY backend ./backend
COPY frontend ./frontend
COPY --from=modules /app/frontend/node_modules ./frontend/node_modules
RUN pip install --no-cache-dir --no-deps -e .
USER saevx
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz')"]
ENTRYPOINT ["saevx"]
CMD ["demo", "--dir", "/data/demo", "--host", "0.0.0.0", "--port", "8000"]
