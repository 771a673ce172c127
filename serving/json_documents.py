"""Documents in JSON that people write: what is wrong with one, in a line."""

from pydantic import ValidationError


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong with a document, as "rules.0.boost: reason"; without what it holds."""
    fault = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, fault["loc"]))
    return f"{where}: {fault['msg']}" if where else fault["msg"]
