"""What next for a user? Usage: EDDY_URL=http://127.0.0.1:8000 EDDY_API_KEY=eddy_… python ask.py USER

Needs `pip install 'eddy-streams[client]'`, or a copy of eddy/client.py and httpx.
"""

import os
import sys

from eddy.client import Client

with Client(os.environ["EDDY_URL"], api_key=os.environ.get("EDDY_API_KEY")) as eddy:
    answer = eddy.recommendations(sys.argv[1], k=5, exclude_seen=True)
    for item in answer.items:
        print(item.item_id, item.score, item.title or "")
