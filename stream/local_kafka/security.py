"""How a local broker is closed, for tests of clients that must authenticate: TLS, SASL, and ACLs.

Clients come in by three listeners: SASL_SSL, SASL_PLAINTEXT, and SSL with a certificate of their own. Whoever
is no super user may do what an ACL allows, and nothing else. The controller's listener, which is for the node
itself, stays plain on the loopback interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eddy.stream.local_kafka.config import HOST

PROTOCOLS = ("SASL_SSL", "SASL_PLAINTEXT", "SSL")
"""The listeners for clients. The first one is the broker's main one, on which it also talks to itself."""

SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
_LOGIN = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class BrokerSecurity:
    """Who may come in.

    certificate: a PEM file with the broker's key (PKCS 8) and certificate chain. authorities: a PEM file with
    the certificates of those whose clients are believed. passwords: by user, for PLAIN and SCRAM. admin: the
    user, among them, who may do everything.

    OAUTHBEARER believes each unsigned token (RFC 7515, appendix A.5), so it is for tests alone.
    """

    certificate: Path
    authorities: Path
    passwords: Mapping[str, str]
    admin: str = "admin"

    def properties(self, ports: Mapping[str, int], controller_port: int) -> dict[str, str]:
        """The lines of server.properties that differ from an open broker's. ports: by protocol."""
        listeners = ",".join(f"{protocol}://{HOST}:{ports[protocol]}" for protocol in PROTOCOLS)
        lines = {
            "listeners": f"{listeners},CONTROLLER://{HOST}:{controller_port}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": ",".join(
                ["CONTROLLER:PLAINTEXT", *(f"{protocol}:{protocol}" for protocol in PROTOCOLS)]
            ),
            "inter.broker.listener.name": PROTOCOLS[0],
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.enabled.mechanisms": ",".join(["PLAIN", *SCRAM, "OAUTHBEARER"]),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.certificate),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authorities),
            "listener.name.ssl.ssl.client.auth": "required",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # The node itself comes in by the controller's listener, without a name.
            "super.users": f"User:{self.admin};User:ANONYMOUS",
            "allow.everyone.if.no.acl.found": "false",
        }
        for protocol in ("sasl_ssl", "sasl_plaintext"):
            lines |= {f"listener.name.{protocol}.{key}": value for key, value in self._logins().items()}
        return lines

    def _logins(self) -> dict[str, str]:
        own = f'username="{self.admin}" password="{self.passwords[self.admin]}"'
        users = " ".join(f'user_{name}="{password}"' for name, password in self.passwords.items())
        logins = {
            "plain.sasl.jaas.config": f"{_LOGIN}.plain.PlainLoginModule required {own} {users};",
            "oauthbearer.sasl.jaas.config": f"{_LOGIN}.oauthbearer.OAuthBearerLoginModule required "
            f'unsecuredLoginStringClaim_sub="{self.admin}";',
            "oauthbearer.sasl.server.callback.handler.class": f"{_LOGIN}.oauthbearer.internals.unsecured."
            "OAuthBearerUnsecuredValidatorCallbackHandler",
        }
        for mechanism in SCRAM:
            logins[f"{mechanism.lower()}.sasl.jaas.config"] = f"{_LOGIN}.scram.ScramLoginModule required;"
        return logins

    def admin_login(self, protocol: str) -> dict[str, str]:
        """Arguments of a kafka-python client that comes in as the admin."""
        return {
            "security_protocol": protocol,
            "sasl_mechanism": SCRAM[-1],
            "sasl_plain_username": self.admin,
            "sasl_plain_password": self.passwords[self.admin],
        }

    def format_arguments(self) -> list[str]:
        """What the formatter of a data folder is told, so that it stores the users' SCRAM credentials."""
        return [
            argument
            for mechanism in SCRAM
            for name, password in self.passwords.items()
            for argument in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]
