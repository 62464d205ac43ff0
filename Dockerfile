# Builds the server. The image contains only the program and root certificates.
#
#   docker build -t rapport:0.1.0 .
#   docker run -p 4000:4000 -e DATABASE_URL=… -e SUPABASE_JWT_SECRET=… rapport:0.1.0

FROM rust:1.95-slim-bookworm AS build
WORKDIR /rapport
COPY Cargo.toml Cargo.lock build.rs ./
# The manifest refers to the benchmarks. The pages, settings and SQL are compiled into the program.
COPY benches benches
# Cargo requires every member of the workspace to exist, even if it is not built.
COPY fuzz fuzz
COPY assets assets
COPY config config
COPY sql sql
COPY src src
RUN cargo build --release --locked

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="Rapport" \
    org.opencontainers.image.description="Real-time chat alongside Supabase or PostgreSQL" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="0.1.0"
# Certificates change often and old ones disappear from the mirrors, so their version is not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /rapport/target/release/rapport /usr/local/bin/rapport
# The user is a number, so that Kubernetes can check that it is not root. It owns no file.
USER 10001:10001
# The server listens on all addresses, because the network of the container restricts access.
ENV RAPPORT_SERVER_ADDRESS=0.0.0.0
EXPOSE 4000
# On SIGTERM, the server stops within server.shutdown_deadline_ms.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["rapport", "health"]
ENTRYPOINT ["rapport"]
CMD ["serve"]
