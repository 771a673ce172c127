"""The table of permissions: which commands are in it, and how it is printed."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from eddy import __main__ as eddy
from eddy.cli.models_commands import commands as models
from eddy.models.errors import EddyError
from eddy.stream.kafka.security.permissions import COMMANDS, Permission, needed_by, principal_of
from eddy.stream.records.settings import load_settings

NO_CLUSTER = {
    "acls",
    "api-key",
    "broker",
    "compare",
    "demo",
    "evaluate",
    "figures",
    "models compare",
    "models show",
}
"""Commands that need none, start one of their own, or run the others."""


def names(app: object, before: str = "") -> set[str]:
    return {
        before + (command.name or command.callback.__name__).rstrip("_")
        for command in app.registered_commands  # type: ignore[attr-defined]
    }


def test_every_command_that_uses_a_cluster_is_in_the_table() -> None:
    every = names(eddy.app) | names(models, "models ") | {"topics"}
    assert every - NO_CLUSTER == set(COMMANDS)


def test_names_are_those_of_the_installation() -> None:
    settings = load_settings(topic_prefix="shop.", group="shop")
    assert needed_by("erase", settings) == [
        Permission("group", "shop", "DESCRIBE"),
        Permission("topic", "shop.events", "WRITE"),
        Permission("topic", "shop.user-state", "READ"),
    ]
    of_worker = needed_by("worker", settings)
    assert Permission("transactional-id", "shop-", "WRITE", prefixed=True) in of_worker


def test_what_includes_describe_is_not_granted_it_again() -> None:
    for command in COMMANDS:
        needed = needed_by(command, load_settings(), "a-topic")
        more = {(each.resource, each.name) for each in needed if each.operation in ("READ", "WRITE")}
        described = {(each.resource, each.name) for each in needed if each.operation == "DESCRIBE"}
        assert not more & described


def test_an_unknown_command_names_those_that_there_are() -> None:
    with pytest.raises(EddyError, match=r"'figures'.*these do: topics, worker, serve"):
        needed_by("figures", load_settings())


@pytest.mark.parametrize(
    ("login", "principal"),
    [
        ({"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "eddy"}, "User:eddy"),
        ({"sasl_mechanism": "OAUTHBEARER", "sasl_username": "eddy"}, None),
        ({}, None),
    ],
)
def test_the_principal_is_known_where_the_login_names_it(
    login: dict[str, str], principal: str | None
) -> None:
    assert principal_of(load_settings(**login)) == principal


def test_the_acls_are_printed_as_commands_that_a_shell_takes_literally() -> None:
    arguments = ["acls", "--for", "rules", "--for", "erase", "--principal", "User:CN=$(x) y"]
    printed = CliRunner().invoke(eddy.app, arguments, env={"EDDY_GROUP": "shop"})
    begin = (
        'kafka-acls --bootstrap-server "$EDDY_BOOTSTRAP_SERVERS" --add --allow-principal '
        "'User:CN=$(x) y' --operation"
    )
    assert printed.output.splitlines() == [
        f"{begin} DESCRIBE --group shop",
        f"{begin} WRITE --topic events",
        f"{begin} WRITE --topic items",
        f"{begin} READ --topic user-state",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name commands by --for; these need permissions: topics, worker"),
        (["--for", "worker"], "say who runs it by --principal"),
        (["--for", "worker", "--principal", "eddy"], "--principal eddy is not of the form User:NAME"),
    ],
)
def test_acls_says_what_it_needs_to_know(arguments: list[str], says: str) -> None:
    ran = CliRunner().invoke(eddy.app, ["acls", *arguments])
    assert isinstance(ran.exception, EddyError)
    assert says in str(ran.exception)
