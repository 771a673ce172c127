"""Whether the process of this container answers: exit code 0 if it does. The image's HEALTHCHECK runs it.

Usage: healthcheck.py [PATH]    (default: /healthz)
A worker is asked at EDDY_METRICS_PORT, a server at EDDY_PORT.
"""

import os
import sys
import urllib.request

PATIENCE_S = 4


def main() -> int:
    port = os.environ.get("EDDY_METRICS_PORT") or os.environ.get("EDDY_PORT") or "8000"
    path = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S):
            return 0
    except OSError as error:
        print(f"port {port}{path}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
