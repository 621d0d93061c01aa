"""What goes wrong in a world, each by one method that a scenario names."""

from __future__ import annotations

from random import Random

from driftloop.contracts.topics import BY_NAME, TOPICS
from driftloop.runtime.transport import Message, Record

from tests.simulation.clock import CLOCK
from tests.simulation.instance import Instance
from tests.simulation.world import World


class FaultyWorld(World):
    """A world in which anything may fail that the product says it survives."""

    def do_kill(self, service: str, after: int, _: int) -> None:
        """Kill a process at the n-th place from now where a kill matters."""
        self._of(service).fuse.steps_left = after

    def do_redeliver(self, service: str, count: int) -> None:
        for instance in self.instances:
            if instance.kind.name == service and instance.is_alive:
                instance.rewind(count)

    def do_duplicate(self, number: int) -> None:
        """Write a record again, as a producer does that was not told of its ack."""
        found = self._consumed()
        if found:
            old = found[number % len(found)]
            if (old.topic, old.partition, old.offset) in self.poison:
                return
            self.append(
                Record(old.topic, old.key, old.value, old.headers, old.partition)
            )

    def _consumed(self) -> list[Message]:
        return [
            message
            for topic in self._topics()
            for partition in range(self.partitions[topic])
            for message in self.broker.log(topic, partition)
        ]

    def _topics(self) -> list[str]:
        """Return what the world's services consume, in the order of the topic table."""
        consumed = {name for kind in self.kinds.values() for name in kind.topics}
        return [topic.name for topic in TOPICS if topic.name in consumed]

    def do_poison(self, number: int) -> None:
        """Write what no consumer can use."""
        dice = Random(number)
        topic = dice.choice(self._topics())
        partition = dice.randrange(self.partitions[topic])
        kind = BY_NAME[topic].event.type_name()
        whole = (("ce_type", kind.encode()), ("ce_id", f"poison-{number}".encode()))
        value, headers = dice.choice(
            [
                (b"\xff\xfe", ()),
                (b"{}", whole),
                (b"[" * 5000, whole),
                (None, whole),
                (b"{}", (("ce_type", b"io.driftloop.other.v9"),)),
                (b"{}", (("ce_type", b"\xff"),)),
            ]
        )
        self.poison.add((topic, partition, self.broker.end((topic, partition))))
        self.append(Record(topic, b"?", value, headers, partition))

    def do_freeze(self, service: str, is_at_the_door: int, steps: int) -> None:
        """Let a process stand still, and a second instance work in its place.

        Parameters
        ----------
        is_at_the_door : it stands between its commit and its publish, or with a job.
        """
        instance = self._of(service)
        if not instance.is_alive or instance.is_frozen:
            return
        if is_at_the_door and instance.hand and not instance.is_processed:
            instance.publisher.is_frozen = True
            self._in(instance, None)
        elif is_at_the_door and "train" in instance.loops:
            self._in(instance, "train")  # a job in its hand, perhaps
        if not instance.is_alive:
            return
        instance.is_frozen = True
        second = next(
            (i for i in self.instances if i.kind is instance.kind and i.replica == "1"),
            None,
        )
        if second is None:
            second = Instance(self, instance.kind, "1")
            self.instances.append(second)
        self._start(second)

        def wake() -> None:
            self.note(instance.name, "is woken")
            instance.is_frozen = instance.publisher.is_frozen = False

        self.later(steps, wake)

    def do_broker_away(self, steps: int) -> None:
        self.broker._set_available(False)
        self.later(steps, lambda: self.broker._set_available(True))

    def do_store_away(self, steps: int) -> None:
        def back() -> None:
            self.store.is_away = CLOCK.is_patient = False

        self.store.is_away = True
        self.later(steps, back)

    def do_endless_store_away(self, steps: int) -> None:
        """Let messages wait so long that they are put aside."""
        CLOCK.is_patient = self.has_waited_out = True
        self.do_store_away(steps)

    def do_database_away(self, service: str, steps: int) -> None:
        disk = self._disk(self._of(service))

        def back() -> None:
            disk.is_away = False

        disk.is_away = True
        self.later(steps, back)

    def do_wipe(self, service: str) -> None:
        """Delete a service's database; it is built anew from the log."""
        for instance in self.instances:
            if instance.kind.name == service:
                instance.kill()
        disk = self._disk(self._of(service))
        is_away = disk.is_away
        self._new_disk(self._of(service))
        disk.is_away = is_away
        self.wiped.add(service)
        self.later(1, lambda: self._start(self._of(service)))
