# Builds the server. The image contains only the program and root certificates.
#
#   docker build -t rapport .
#   docker run -p 4000:4000 -e DATABASE_URL=… -e SUPABASE_JWT_SECRET=… rapport

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
# Needed for TLS connections to the database with sslmode=verify-full.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home rapport
COPY --from=build /rapport/target/release/rapport /usr/local/bin/rapport
USER rapport
# In a container, the surrounding network restricts access.
ENV RAPPORT_SERVER_ADDRESS=0.0.0.0
EXPOSE 4000
# Stops on SIGTERM within server.shutdown_deadline_ms. /health and /ready report the server's state.
ENTRYPOINT ["rapport"]
CMD ["serve"]
