"""What operators and their tools ask: is the process alive, is it ready, what does it count?"""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from eddy.serving.api_keys import ApiKeys
from eddy.serving.service import Service


class Alive(BaseModel):
    """The process answers."""

    alive: bool = True


class Readiness(BaseModel):
    """Whether questions should be sent here."""

    ready: bool
    reasons: list[str]
    """why not"""
    problems: list[str]
    """what cannot be read at the moment; the server answers from what it had before"""


def operation_routes(service: Service, keys: ApiKeys | None) -> APIRouter:
    """The routes of operations. keys: those of callers, where callers need keys.

    Balancers and monitors ask for health with HEAD, too.
    """
    routes = APIRouter(tags=["operations"])

    @routes.head("/healthz", include_in_schema=False)
    @routes.get("/healthz")
    async def healthz() -> Alive:
        """The process is alive."""
        return Alive()

    @routes.head("/readyz", include_in_schema=False)
    @routes.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready yet"}})
    async def readyz(response: Response) -> Readiness:
        """200 when the topics are read up to their ends at the start and a model is loaded."""
        reasons = service.not_ready()
        response.status_code = 503 if reasons else 200
        problems = [*service.problems(), *([keys.problem] if keys and keys.problem else [])]
        return Readiness(ready=not reasons, reasons=reasons, problems=problems)

    @routes.head("/metrics", include_in_schema=False)
    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Metrics for Prometheus."""
        return Response(await service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return routes
