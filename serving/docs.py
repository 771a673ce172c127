"""The API's description: as OpenAPI at `/openapi.json`, and rendered at `/docs` without any outside asset."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_swagger import patch_fastapi

from eddy.serving.problems import Problem, responses
from eddy.serving.scopes import SCHEME


def serve_docs(app: FastAPI, with_keys: bool) -> None:
    """Add `/docs`, and describe in the schema what this application answers where the framework's defaults
    say otherwise. with_keys: whether callers need API keys.
    """
    patch_fastapi(
        app,
        redirect_from_root_to_docs=False,
        swagger_js_url="/docs/swagger-ui.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/docs/favicon.png",
    )

    def description() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = Problem.model_json_schema(mode="serialization")
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for operations in schema["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)  # what is misunderstood is answered with 400
                    _describe_keys(operation, with_keys)
                    statuses = (415, 503) if "requestBody" in operation else (503,)
                    refusals = {str(status): of for status, of in responses(*statuses).items()}
                    operation["responses"] = dict(sorted((refusals | operation["responses"]).items()))
            if with_keys:
                schema["components"]["securitySchemes"]["Bearer"] = {"type": "http", "scheme": "bearer"}
            else:
                schema["components"].pop("securitySchemes", None)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = description  # type: ignore[method-assign]


def _describe_keys(operation: dict[str, Any], with_keys: bool) -> None:
    """Say of an operation which scope it needs, in either header, and how it refuses; or nothing of this."""
    needed = operation.pop("security", [])
    if needed and with_keys:
        scopes = needed[0][SCHEME]
        operation["security"] = [{SCHEME: scopes}, {"Bearer": scopes}]
        operation["responses"] |= {str(status): of for status, of in responses(401, 403).items()}
