# esm as a container: two stages, no root, writes only below /var/lib/esm (its state) and /tmp.
#
#   docker build -t esm .
#   docker run -v ./esm.yaml:/etc/esm/esm.yaml:ro -v esm-state:/var/lib/esm -p 127.0.0.1:9464:9464 esm
#
# With the embedded local AWS, for the demo:  docker build --build-arg EXTRAS='[local]' -t esm-demo .
#                                             docker run --rm -it --init esm-demo demo

FROM python:3.13-slim AS build
ARG EXTRAS=""
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /opt/venv \
    && python -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --constraint constraints.txt uv
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY esm esm
RUN /opt/uv/bin/uv pip install --no-cache --python /opt/venv/bin/python --compile-bytecode \
        --constraint constraints.txt ".${EXTRAS}"

FROM python:3.13-slim
RUN groupadd --system --gid 10001 esm \
    && useradd --system --uid 10001 --gid esm --home-dir /var/lib/esm --shell /usr/sbin/nologin esm \
    && install -d -o esm -g esm -m 0700 /var/lib/esm
COPY --from=build /opt/venv /opt/venv
COPY LICENSE /usr/share/doc/esm/LICENSE
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ESM_CONFIG=/etc/esm/esm.yaml \
    ESM_STATE=sqlite:////var/lib/esm/state.db \
    ESM_METRICS_ADDRESS=0.0.0.0:9464 \
    ESM_LOG_FORMAT=json
WORKDIR /var/lib/esm
VOLUME /var/lib/esm
EXPOSE 9464
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["python", "-c", "\
import os, urllib.request as http; \
port = os.environ['ESM_METRICS_ADDRESS'].rpartition(':')[2]; \
http.build_opener(http.ProxyHandler({})).open(f'http://127.0.0.1:{port}/healthz', timeout=4)"]
ENTRYPOINT ["esm"]
CMD ["run", "-c", "/etc/esm/esm.yaml"]
