"""The page /metrics of a server with several workers: the figures of each, told apart by the label `worker`."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.types import Scope

from backend.workers.forward import body_of
from backend.workers.place import Worker


async def figures_of_all(worker: Worker, own_text: bytes, scope: Scope) -> bytes:
    """The figures of all workers that answer the request of `scope`; `own_text` are those of this one."""
    new_scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]}
    numbers = [number for number in range(1, worker.n + 1) if number != worker.number]
    texts = await asyncio.gather(*(body_of(worker, number, new_scope) for number in numbers))
    by_worker = {worker.number: own_text} | {number: text for number, text in zip(numbers, texts, strict=True) if text}
    registry = CollectorRegistry()
    registry.register(Labelled(dict(sorted(by_worker.items()))))
    return generate_latest(registry)


class Labelled(Collector):
    """Figures by worker, as one list of families."""

    def __init__(self, texts: Mapping[int, bytes]) -> None:
        self.texts = texts

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for number, text in self.texts.items():
            for family in text_string_to_metric_families(text.decode()):
                metric = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    metric.add_sample(sample.name, {"worker": str(number), **sample.labels}, sample.value)
        yield from families.values()

    def describe(self) -> Iterable[Metric]:
        return ()
