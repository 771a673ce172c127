"""The HTTP API: its routes, and what holds for all of them.

| module of `routes` | what it answers |
| --- | --- |
| recommendations | lists and rankings for a user or a session |
| items | items like an item, and what is popular |
| events | events in: posted, from beacons, from pixels |
| users | what is stored of a user, and its erasure |
| inside | hidden states through time |
| live | the installation now and lately, dead letters |
| versions | model versions, and which are live |
| operations | `/healthz`, `/readyz`, `/metrics` |

`/openapi.json` describes the API, from the types that check requests; `/docs` renders it, and at `/` is the
live page (`eddy.serving.page`), which asks this API. Every error is a problem in JSON
(`eddy.serving.problems`).
"""

from importlib.metadata import version

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from eddy.serving.api_keys import ApiKeys
from eddy.serving.authentication import Authentication
from eddy.serving.docs import serve_docs
from eddy.serving.live.streams import TIME_HEADER
from eddy.serving.page.files import serve_page
from eddy.serving.problems import answer_with_problems
from eddy.serving.request_form import RequestForm
from eddy.serving.requests import Requests
from eddy.serving.routes.events import event_routes
from eddy.serving.routes.inside import inside_routes
from eddy.serving.routes.items import item_routes
from eddy.serving.routes.live import live_routes
from eddy.serving.routes.operations import operation_routes
from eddy.serving.routes.recommendations import recommendation_routes
from eddy.serving.routes.users import user_routes
from eddy.serving.routes.versions import version_routes
from eddy.serving.service import Service
from eddy.stream.tracing import Tracer

MAX_BODY_BYTES = 1 << 20
"""The largest body of a request."""


def new_app(service: Service, tracer: Tracer | None = None) -> FastAPI:
    """The application with its routes; the caller starts and stops `service`. tracer: of requests, where
    their spans are recorded.

    Errors: EddyError when the file of API keys cannot be used.
    """
    app = FastAPI(
        title="Eddy",
        version=version("eddy-streams"),
        description="What next for whom, now: recommendations that follow each person, event by event.",
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
        strict_content_type=False,  # a body is JSON, whatever its sender calls it
    )
    settings = service.settings
    keys = ApiKeys(settings.api_keys_file) if settings.api_keys_file else None
    answer_with_problems(app)
    app.include_router(recommendation_routes(service))
    app.include_router(item_routes(service))
    app.include_router(event_routes(service))
    app.include_router(live_routes(service))
    app.include_router(inside_routes(service))
    app.include_router(version_routes(service))
    app.include_router(user_routes(service))  # behind the routes whose paths go on after the user's id
    app.include_router(operation_routes(service, keys))
    serve_docs(app, with_keys=keys is not None)
    if settings.page:
        serve_page(app)
    # From here on from the inside to the outside.
    app.add_middleware(RequestForm, max_bytes=MAX_BODY_BYTES)
    if keys:
        app.add_middleware(Authentication, keys=keys)
    if settings.http_cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.http_cors_origins.split(","),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "Retry-After", TIME_HEADER],
        )
    app.add_middleware(
        Requests,
        metrics=service.metrics,
        is_overloaded=service.is_overloaded,
        max_concurrent=settings.http_max_concurrent,
        log_each=settings.http_access_log,
        tracer=tracer,
    )
    return app
