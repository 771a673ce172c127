"""What a route asks of its caller's API key: one scope, named where the route is declared.

    @routes.get("/v1/popular", dependencies=[READ])

`eddy.serving.authentication` has found out before whose key a request carries. Without keys nobody is asked.
"""

from typing import Any

from fastapi import Request, Security
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security.base import SecurityBase
from starlette.exceptions import HTTPException

from eddy.serving.api_keys import CALLER

SCHEME = "ApiKey"
"""The security scheme's name in the API's description."""


class _NeedsScope(SecurityBase):
    """A dependency of a route, which is its security requirement in the API's description, too."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.scheme_name = SCHEME
        self.model = APIKey.model_validate({"in": APIKeyIn.header, "name": "X-API-Key"})

    async def __call__(self, request: Request) -> None:
        """Errors: HTTPException 403 when the caller's key has other scopes only."""
        caller = request.scope.get(CALLER)
        if caller is not None and self.scope not in caller.scopes:
            raise HTTPException(403, f"this API key lacks the scope {self.scope}")


def _needs(scope: str) -> Any:
    return Security(_NeedsScope(scope), scopes=[scope])


READ = _needs("read")
"""Lists, items, and what is stored of a user."""

WRITE = _needs("write")
"""Events come in."""

ERASE = _needs("erase")
"""A user is erased."""

OPERATE = _needs("operate")
"""Another model version goes live. A key that writes may be in public pages, and must not do this."""
