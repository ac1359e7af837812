# Plain instructions only: the classic builder of an old Docker builds this too.
ARG GO_IMAGE=golang:1.26-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /out/ ./cmd/seenby ./examples/core

# What both images have in common. PostgreSQL refuses to run as root, and asks for the name of its user.
FROM ${BASE_IMAGE} AS run
RUN useradd --uid 10001 --user-group --home-dir /data --no-create-home --shell /usr/sbin/nologin seenby \
 && install -d -o seenby -g seenby -m 0755 /data
USER seenby
VOLUME ["/data"]
STOPSIGNAL SIGTERM

# The core system of the compose file: docker build --target core .
FROM run AS core
COPY --from=build /out/core /usr/local/bin/core
EXPOSE 9090
ENTRYPOINT ["/usr/local/bin/core"]
CMD ["--data", "/data/core.jsonl", "--addr", "0.0.0.0:9090"]

FROM run
# "dev" downloads PostgreSQL by HTTPS; the slim base has no certificates of its own.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/seenby /usr/local/bin/seenby
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/seenby"]
CMD ["dev", "--data-dir", "/data", "--http-addr", "0.0.0.0:8080"]
