# One image for every node: the guest's, the hosts', the training runner's.
#   docker build -t tessera .
#   docker run --rm -v "$PWD/guest:/etc/tessera:ro" -v tessera-guest:/var/lib/tessera tessera
FROM python:3.12-slim-bookworm AS build
WORKDIR /source
RUN python -m venv /opt/tessera
ENV PATH=/opt/tessera/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The transport is compiled here: see docs/transport.md.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ENV HATCH_BUILD_HOOK_ENABLE_CUSTOM=true
COPY pyproject.toml hatch_build.py README.md ./
COPY serving serving
COPY loaders loaders
COPY apps apps
COPY training training
COPY proto proto
ARG EXTRAS=sql
RUN pip install ".[${EXTRAS}]"

FROM python:3.12-slim-bookworm
RUN useradd --uid 10001 --create-home --home-dir /var/lib/tessera --shell /usr/sbin/nologin tessera \
    && install -d -o tessera -g tessera /certificates /var/lib/tessera/registry
COPY --from=build /opt/tessera /opt/tessera
ENV PATH=/opt/tessera/bin:$PATH PYTHONUNBUFFERED=1 TESSERA_LOG_FORMAT=json TESSERA_CONFIG=/etc/tessera/serving.toml
USER 10001
WORKDIR /var/lib/tessera
VOLUME /var/lib/tessera
# service, party, admin, http
EXPOSE 8700 8701 8702 8703
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["tessera", "ready", "--config", "/etc/tessera/serving.toml", "--timeout-s", "3"]
# SIGTERM drains; SIGHUP takes new settings.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tessera"]
CMD ["serve", "--config", "/etc/tessera/serving.toml"]
