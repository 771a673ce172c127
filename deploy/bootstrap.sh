#!/bin/sh
# Sets up .venv beside this folder: finds a Python, then leaves the rest to bootstrap.py (standard library only).
# Usage: sh deploy/bootstrap.sh [EXTRA...]
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; }
makes_environments() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

incomplete=
for python in python3.12 python3.11 python3.13 python3.14 python3 python; do
    fits "$python" || continue
    makes_environments "$python" && exec "$python" "$here/bootstrap.py" "$@"
    incomplete=${incomplete:-$python}
done
if [ -n "$incomplete" ]; then
    version=$("$incomplete" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "set-up: $incomplete cannot make virtual environments (no ensurepip):" \
        "install python$version-venv (Debian, Ubuntu: sudo apt install python$version-venv) and run this again" >&2
else
    echo "set-up: no Python 3.11, 3.12, 3.13 or 3.14 on the PATH: install one and run this again" >&2
fi
exit 1
