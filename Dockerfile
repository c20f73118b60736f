# Targets: soirees and playlists (the services), lagmaster (the imitation of the external API, for the profile
# `offline` of docker-compose.yml). Without --target, playlists is built.

FROM debian:bookworm-slim AS lagmaster
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/*
COPY tests/fakes/lagmaster.py /usr/local/bin/
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
CMD ["python3", "-u", "/usr/local/bin/lagmaster.py", "--bind", "0.0.0.0", "--port", "8080"]


FROM debian:bookworm-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
        gcc libc6-dev cmake ninja-build pkg-config \
        librabbitmq-dev libmicrohttpd-dev libcurl4-openssl-dev libcjson-dev libsqlite3-dev libpq-dev \
        zlib1g-dev libssl-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY CMakeLists.txt ./
COPY tests/CMakeLists.txt tests/
COPY common common
COPY soirees soirees
COPY playlists playlists
RUN cmake -G Ninja -S . -B /build -DCMAKE_BUILD_TYPE=Release \
 && cmake --build /build --target soirees playlists


FROM debian:bookworm-slim AS runtime
# The user's number is fixed, so that a volume or a bind mount belongs to the same one after every build.
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
        ca-certificates libcjson1 libcurl4 libmicrohttpd12 librabbitmq4 libsqlite3-0 libpq5 zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 soirees \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin soirees \
 && install -d -o soirees -g soirees -m 750 /data
USER 10001:10001
WORKDIR /data
VOLUME /data


FROM runtime AS soirees
COPY --from=build /build/bin/soirees /usr/local/bin/
ENV DATABASE_PATH=/data/soirees.db
EXPOSE 3003
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s --retries=3 CMD ["soirees", "--healthcheck"]
CMD ["soirees"]


FROM runtime AS playlists
COPY --from=build /build/bin/playlists /usr/local/bin/
ENV DATABASE_PATH=/data/playlists.db
EXPOSE 3002
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s --retries=3 CMD ["playlists", "--healthcheck"]
CMD ["playlists"]
