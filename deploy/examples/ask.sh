#!/bin/sh
# What next for a user? Usage: EDDY_URL=http://127.0.0.1:8000 EDDY_API_KEY=eddy_… sh ask.sh USER
# --retry: after 429 and 503, when the server says; USER must be percent-encoded.
set -eu
curl --silent --show-error --fail-with-body --retry 3 --max-time 5 \
  --header "X-API-Key: ${EDDY_API_KEY:-}" \
  "$EDDY_URL/v1/users/$1/recommendations?k=5&exclude_seen=true"
echo
