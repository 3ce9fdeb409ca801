# The HTTP server as an image; docs/how-to/deploy.md says how to run it.
# By digest, so that the same sources make the same image. Take a newer one for each release of 3.13.
FROM python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS base

FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY fivetran_state/ fivetran_state/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install pip==26.3 \
    && pip install --constraint constraints.txt hatchling \
    && pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
    && python -m venv --without-pip /opt/fivetran-state \
    && pip --python /opt/fivetran-state/bin/python install --no-require-hashes --constraint constraints.txt \
        "$(find /wheel -name '*.whl')[otel]"

FROM base
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin fivetran-state \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=build /opt/fivetran-state /opt/fivetran-state
# Not /data itself: a volume may belong to root, and the server closes its directory to others.
ENV PATH=/opt/fivetran-state/bin:$PATH \
    FIVETRAN_STATE_DATA_DIR=/data/fivetran-state
USER 10001:10001
VOLUME /data
EXPOSE 8000
# Then updates get FIVETRAN_STATE_SHUTDOWN_WAIT (20 s) to end: docker stop --timeout 40.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["fivetran-state"]
CMD ["serve", "--http", "--host", "0.0.0.0", "--port", "8000"]
