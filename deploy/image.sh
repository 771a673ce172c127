#!/bin/sh
# Fills the folders of an image. The Dockerfile runs this, and `make deploy-check` runs it in a clean folder.
# Usage: sh deploy/image.sh packages cpu|cuda FOLDER    # an environment with the locked packages
#        sh deploy/image.sh program FOLDER              # Eddy itself, a layer of its own: it changes most often
# PYTHON names the interpreter, which has the packages of requirements/build.txt.
set -eu
python=$(command -v "${PYTHON:-python3}")
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
requirements=$here/requirements

case $1 in
packages)
    uv venv --quiet --python "$python" "$3"
    uv pip install --python "$3" --require-hashes --no-deps --requirement "$requirements/$2.txt"
    if [ "$2" = cpu ]; then
        version=$(sed -nE 's/^torch==([0-9.]+).*/\1/p' "$requirements/cuda.txt")
        uv pip install --python "$3" --no-deps --torch-backend=cpu "torch==$version"
    fi
    ;;
program)
    uv pip install --python "$python" --no-deps --no-build-isolation --target "$2" "$here/.."
    ;;
*)
    echo "image.sh: $1 is neither packages nor program" >&2
    exit 1
    ;;
esac
