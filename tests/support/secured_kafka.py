"""A local broker that lets nobody in without a login and allows only what ACLs allow; and certificates."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)
from pydantic import SecretStr

from eddy.stream.kafka.clients import admin_client
from eddy.stream.kafka.security.permissions import Permission
from eddy.stream.local_kafka.broker import LocalBroker
from eddy.stream.local_kafka.config import HOST
from eddy.stream.local_kafka.security import BrokerSecurity
from eddy.stream.records.settings import Settings, load_settings
from tests.support.waiting import eventually

ADMIN = "admin"
KEY_PASSWORD = "key-secret"

_PRINCIPAL_IS_THE_COMMON_NAME = {"ssl.principal.mapping.rules": r"RULE:^.*CN=([^,]+).*$/$1/"}
_TYPES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}
_CHECKS = {"DescribeGroups", "DescribeTransactions", "FindCoordinator"}
_DECISION = re.compile(
    r"Principal = User:(\S+) is (Allowed|Denied) operation = (\w+) .* on resource = (\w+):LITERAL:(\S+) for "
    r"request = (\w+)(?:.*resourceName=(\S+), patternType=(\w+))?"
)


def password_of(user: str) -> str:
    return f"secret-of-{user}"


def write_key_and_chain(leaf: trustme.LeafCert, path: Path, password: str | None = None) -> Path:
    """The key as PKCS 8, which is all that Kafka reads, and the certificates that belong to it."""
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None).private_bytes(
        Encoding.PEM,
        PrivateFormat.PKCS8,
        BestAvailableEncryption(password.encode()) if password else NoEncryption(),
    )
    path.write_bytes(key + b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    return path


def expired_client(authority: trustme.CA, path: Path) -> Path:
    """The certificate of a client that was valid until yesterday."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    leaf = authority.issue_cert(
        "client", common_name="client", not_before=datetime(2020, 1, 1), not_after=yesterday
    )
    return write_key_and_chain(leaf, path)


def unsigned_token(user: str, valid_s: int = 3_600) -> str:
    """A token without a signature (RFC 7515, appendix A.5), which the broker believes."""
    now = int(datetime.now(UTC).timestamp())
    # Made a while ago: the broker refuses what its clock, in whole ms, has not reached yet.
    parts = ({"alg": "none"}, {"sub": user, "iat": now - 10, "exp": now + valid_s})
    return ".".join([*(_base64(msgspec.json.encode(part)) for part in parts), ""])


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


class SecuredKafka:
    """The broker, with who may come in; made by `secured_kafka`."""

    def __init__(self, broker: LocalBroker, authority: trustme.CA, folder: Path) -> None:
        self.broker, self.authority, self.folder = broker, authority, folder
        self.authorities = folder / "authorities.pem"

    def settings(self, user: str, protocol: str = "SASL_SSL", **values: object) -> Settings:
        """Settings of a user who logs in with a password, unless `values` say otherwise."""
        login: dict[str, object] = {}
        if protocol.startswith("SASL"):
            login = {
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_username": user,
                "sasl_password": password_of(user),
            }
        if protocol.endswith("SSL"):
            login["ssl_cafile"] = self.authorities
        own = {"bootstrap_servers": self.broker.address_of(protocol), "security_protocol": protocol}
        return load_settings(**{**own, **login, **values})

    def allow(self, user: str, permissions: Iterable[Permission]) -> None:
        """Add ACLs; returns when the broker goes by them."""
        acls = [_acl(user, each) for each in permissions]
        with admin_client(self.settings(ADMIN)) as admin:
            assert not admin.create_acls(acls)["failed"]
            everything = ACLFilter(
                f"User:{user}", None, ACLOperation.ANY, ACLPermissionType.ANY,
                ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
            )  # fmt: skip
            eventually(lambda: set(acls) <= set(admin.describe_acls(everything)[0]), what=f"ACLs of {user}")

    def forbid(self, user: str, permission: Permission) -> None:
        """Remove an ACL; returns when the broker goes by that."""
        acl = _acl(user, permission)
        with admin_client(self.settings(ADMIN)) as admin:
            admin.delete_acls([acl])
            eventually(lambda: acl not in set(admin.describe_acls(acl)[0]), what=f"no {permission}")

    def decisions(self, user: str, verdict: str) -> set[Permission]:
        """What the broker has decided about a user by its log, "Allowed" or "Denied", each on the resource
        that the ACL names where one has decided. What only `require_permissions` asks for is left out.
        """
        made = set[Permission]()
        for line in self.broker.log_file.read_text(errors="replace").splitlines():
            match = _DECISION.search(line)
            if match and (match[1], match[2]) == (user, verdict) and match[6] not in _CHECKS:
                resource = {"TransactionalId": "transactional-id"}.get(match[4], match[4].lower())
                made.add(Permission(resource, match[7] or match[5], match[3], match[8] == "PREFIXED"))
        return made


def _acl(user: str, permission: Permission) -> ACL:
    pattern = ACLResourcePatternType.PREFIXED if permission.prefixed else ACLResourcePatternType.LITERAL
    return ACL(
        f"User:{user}", "*", ACLOperation[permission.operation], ACLPermissionType.ALLOW,
        ResourcePattern(_TYPES[permission.resource], permission.name, pattern),
    )  # fmt: skip


@contextmanager
def secured_kafka(
    folder: Path, users: Iterable[str], properties: Mapping[str, str] | None = None
) -> Iterator[SecuredKafka]:
    """Yields a broker that knows these users, beside the admin, by `password_of`; properties: more of Kafka's
    own.
    """
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authorities.pem"))
    security = BrokerSecurity(
        write_key_and_chain(authority.issue_cert(HOST, "localhost"), folder / "broker.pem"),
        folder / "authorities.pem",
        {user: password_of(user) for user in (ADMIN, *users)},
        ADMIN,
    )
    properties = {**_PRINCIPAL_IS_THE_COMMON_NAME, **(properties or {})}
    with LocalBroker(security=security, properties=properties) as broker:
        yield SecuredKafka(broker, authority, folder)


def environment(settings: Settings) -> dict[str, str]:
    """The variables that make these settings in another process."""
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    revealed = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
        if value is not None
    }
    return {f"EDDY_{name.upper()}": value for name, value in revealed.items()}
