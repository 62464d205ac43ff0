# Builds the server and leaves the program, root certificates and nothing else.
#
#   docker build -t rapport .
#   docker run -p 4000:4000 -e DATABASE_URL=… -e SUPABASE_JWT_SECRET=… rapport

FROM rust:1.95-slim-bookworm AS build
WORKDIR /rapport
COPY Cargo.toml Cargo.lock build.rs ./
# The manifest names the benchmarks, and the program has the settings and the SQL compiled in.
COPY benches benches
# A member of the workspace, which cargo wants to see although it builds none of it.
COPY fuzz fuzz
COPY config config
COPY sql sql
COPY src src
RUN cargo build --release --locked

FROM debian:bookworm-slim
# For TLS to the database with sslmode=verify-full.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home rapport
COPY --from=build /rapport/target/release/rapport /usr/local/bin/rapport
USER rapport
# In a container the network in front of it decides who reaches it.
ENV RAPPORT_SERVER_ADDRESS=0.0.0.0
EXPOSE 4000
# Stops on SIGTERM within server.shutdown_deadline_ms; /health and /ready tell how it is.
ENTRYPOINT ["rapport"]
CMD ["serve"]
