#!/bin/sh
# Locks what the containers install: every package with its version and the SHA-256 of its files (`make lock`).
#
# cuda.txt is complete. cpu.txt leaves out torch and the CUDA libraries that it brings: torch's CPU build has an
# index of its own, from which the image takes the version that cuda.txt names (see ../image.sh).
# The versions suit Python 3.11, the oldest one supported, and so every later one, the images' among them.
# Usage: sh deploy/requirements/lock.sh UV
set -eu
uv=$1
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd "$here/../.."

lock() { # lock FILE [OPTION...]
    file=$1
    shift
    "$uv" pip compile pyproject.toml --quiet --upgrade --extra drift --extra otel --generate-hashes --no-annotate \
        --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
        --custom-compile-command 'make lock' --output-file "$here/$file" "$@"
}

lock cuda.txt
only_with_cuda=$(sed -nE 's/^((torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)(\[[a-z,]+\])?)==.*/\2/p' "$here/cuda.txt")
# shellcheck disable=SC2046 # one option per package
lock cpu.txt $(printf -- '--no-emit-package %s ' $only_with_cuda)
# What builds the images: uv, and the build backend of Eddy's wheel.
printf 'uv\nsetuptools>=77,<90\n' | "$uv" pip compile - --quiet --upgrade --generate-hashes --no-annotate --python-version 3.11 \
    --custom-compile-command 'make lock' --output-file "$here/build.txt"
