# docker build -t flm . && docker run --rm -v "$PWD:/work" flm quickstart
FROM rust:1-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo install --locked --root /usr/local --path crates/flm-cli

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/bin/flm /usr/local/bin/flm
WORKDIR /work
ENTRYPOINT ["flm"]
