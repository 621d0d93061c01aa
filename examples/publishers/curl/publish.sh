#!/bin/sh
# Publish a batch of observations and one of labels: publish.sh FOLDER.
set -eu

url="${DRIFTLOOP_INGEST_URL:-http://127.0.0.1:7001}/v1/pipelines/${DRIFTLOOP_PIPELINE:-bike-demand}"
source=city-counter

publish() { # KIND: 202 means that Kafka has the rows; 429, 503 and a broken connection are tried again
  curl --silent --show-error --fail-with-body \
    --retry 5 --retry-connrefused --max-time 30 \
    -H "Authorization: Bearer $DRIFTLOOP_API_TOKEN" \
    -H 'Content-Type: application/x-ndjson' \
    --data-binary "@$2/$1.ndjson" \
    "$url/$1?source=$source"
}

publish observations "$1"
publish labels "$1"
echo published
