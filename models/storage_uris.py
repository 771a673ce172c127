"""URIs of object storage: which filesystem of pyarrow each stands for, and that no secret is in it."""

import configparser
import os
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote_to_bytes, urlsplit

from eddy.models.errors import EddyError

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")

_SECRETS = ("secret", "token", "sas", "sig", "password", "account_key")
_CONNECT_S, _REQUEST_S = 5, 60


def filesystem_of(uri: str) -> tuple[Any, str]:
    """pyarrow's filesystem for a URI, and the path in it. Nothing is read.

    Errors: EddyError for another scheme, for a secret in the URI, and for what pyarrow cannot use.
    """
    scheme = uri.partition("://")[0]
    if scheme not in SCHEMES:
        schemes = ", ".join(f"{each}://" for each in ("s3", "gs", "abfs"))
        raise EddyError(f"{scheme}://: not a storage that can be used; give a path, or one of {schemes}")
    _refuse_secrets(uri)
    import pyarrow as pa

    try:
        return _s3(uri) if scheme == "s3" else _other(uri)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise EddyError(f"{uri}: cannot be used ({one_line(error)}); check the URI and the network") from None


def path_of_file(uri: str) -> Path:
    """The path that a file:// URI names, in which "%20" is a space.

    Errors: EddyError for a URI of another machine, and for one without a path or with something behind it.
    """
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or not parts.path or parts.query or parts.fragment:
        raise EddyError(f"{uri}: names no file of this machine; write file:///folder/file, or the path alone")
    return Path(os.fsdecode(unquote_to_bytes(parts.path)))


def one_line(error: BaseException) -> str:
    """The first line of an error's text, without the request's id that storages add."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text.partition(" (Request ID:")[0]


def _split(uri: str) -> SplitResult:
    """The parts of a URI; a key may hold a "#", which begins a fragment elsewhere."""
    return urlsplit(uri, allow_fragments=False)


def _refuse_secrets(uri: str) -> None:
    """Errors: EddyError, which does not repeat the URI."""
    parts = _split(uri)
    options = parse_qs(parts.query)
    secret = parts.password is not None or (parts.scheme == "s3" and parts.username is not None)
    if secret or any(word in name.lower() for name in options for word in _SECRETS):
        raise EddyError(
            f"the {parts.scheme}:// URI holds credentials, which would be logged; give them by the "
            "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; GOOGLE_APPLICATION_CREDENTIALS; AZURE_…)"
        )


def _s3(uri: str) -> tuple[Any, str]:
    """pyarrow reads keys, profile and role as the SDK does, but no endpoint. Without a region it would ask
    machines on the network for one, and wait for long where there are none.
    """
    from pyarrow.fs import S3FileSystem

    parts = _split(uri)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = options.keys() - {"region", "scheme", "endpoint_override"}
    if unknown or not parts.netloc:
        raise ValueError(f"unknown option {sorted(unknown)[0]}" if unknown else "no bucket")
    environment = os.environ.get
    endpoint = (
        options.get("endpoint_override")
        or environment("AWS_ENDPOINT_URL_S3")
        or environment("AWS_ENDPOINT_URL")
    )
    region = options.get("region") or environment("AWS_REGION") or environment("AWS_DEFAULT_REGION")
    region = region or _region_of_profile() or ("us-east-1" if endpoint else None)
    if not region:
        raise EddyError(
            f"{uri}: nothing says in which region the bucket is: set AWS_REGION, or add ?region=… (storage "
            "outside AWS needs none: set AWS_ENDPOINT_URL)"
        )
    filesystem = S3FileSystem(
        region=region, endpoint_override=endpoint, connect_timeout=_CONNECT_S, request_timeout=_REQUEST_S,
        **{"scheme": options["scheme"]} if "scheme" in options else {},
    )  # fmt: skip
    return filesystem, (parts.netloc + parts.path).rstrip("/")


def _region_of_profile() -> str | None:
    """The region in the SDK's configuration file. Errors: ValueError for a file that cannot be read."""
    environment = os.environ.get
    profile = environment("AWS_PROFILE") or environment("AWS_DEFAULT_PROFILE") or "default"
    file = Path(environment("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
    configuration = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        configuration.read(file)
    except configparser.Error as error:
        raise ValueError(f"{file}: {one_line(error)}") from None
    section = "default" if profile == "default" else f"profile {profile}"
    return configuration.get(section, "region", fallback=None)


def _other(uri: str) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    if "#" in uri:  # pyarrow leaves out what follows, and would read another place
        raise ValueError("write %23 for #")
    filesystem, path = FileSystem.from_uri(uri)
    return filesystem, path.rstrip("/")
