"""The memory driver keeps the transport protocol; details of its own are here."""

import threading

import pytest
from driftloop.runtime.drivers.memory import (
    MemoryBroker,
    MemoryDriver,
    MemoryPublisher,
)
from driftloop.runtime.transport import Message, PublishError, Record


def test_key_decides_partition() -> None:
    """Records of one key stay in one partition, in order."""
    broker = MemoryBroker({"t": 4})
    broker.append([Record("t", b"k", str(n).encode()) for n in range(10)])
    logs = [broker.log("t", number) for number in range(4)]
    (used,) = [log for log in logs if log]
    assert [m.value for m in used] == [str(n).encode() for n in range(10)]
    assert [m.offset for m in used] == list(range(10))


def test_publish_in_outage_fails_and_writes_nothing() -> None:
    """An outage refuses the whole call; afterwards it works again."""
    broker = MemoryBroker({"t": 1})
    publisher = MemoryPublisher(broker)
    with broker.outage(), pytest.raises(PublishError):
        publisher.publish([Record("t", b"k", b"v")])
    assert broker.log("t") == ()
    publisher.publish([Record("t", b"k", b"v")])
    assert len(broker.log("t")) == 1


def test_missing_topic_is_refused_as_a_whole() -> None:
    """All or nothing: a record for a missing topic keeps the others out."""
    broker = MemoryBroker({"t": 1})
    with pytest.raises(PublishError, match="nowhere"):
        broker.append([Record("t", b"k", b"v"), Record("nowhere", b"k", b"v")])
    assert broker.log("t") == ()


def test_two_members_share_partitions_without_overlap() -> None:
    """Each message is processed by exactly one of two running members."""
    broker = MemoryBroker({"t": 4})
    seen: list[list[Message]] = [[], []]
    drivers = [MemoryDriver(broker, "g", ["t"]) for _ in seen]
    threads = [
        threading.Thread(
            target=driver.run, args=(into.extend, lambda _topic, _partition: None)
        )
        for driver, into in zip(drivers, seen, strict=True)
    ]
    for thread in threads:
        thread.start()
    deadline = threading.Event()
    while any(len(driver.status().assigned) != 2 for driver in drivers):
        assert not deadline.wait(0.01)
    broker.append([Record("t", None, b"v", partition=n % 4) for n in range(40)])
    while sum(map(len, seen)) < 40:
        assert not deadline.wait(0.01)
    for driver in drivers:
        driver.stop()
    for thread in threads:
        thread.join(120)
    assert [len(into) for into in seen] == [20, 20]
