"""The page /metrics: what Prometheus reads of a running server."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backend.stores import State

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
MODEL_STATES = ("off", "loading", "ready", "failed")
disable_created_metrics()  # or each figure would have a second line
EVENT_BYTES = 16
"""Of a cached event: its feature and its value."""


class Metrics:
    """The figures of one application, in a registry of their own."""

    def __init__(self, state: State) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "saevx_request_seconds",
            "Time from a request's head to the last byte of its reply.",
            ("route", "method", "status"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("saevx_requests_in_flight", "Requests that are being answered.", registry=self.registry)
        self.tokens = Counter(
            "saevx_live_tokens",
            "Tokens that steering has generated; rate() gives tokens per second.",
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(StateCollector(state))


class StateCollector(Collector):
    """Figures that are read when they are asked for."""

    def __init__(self, state: State) -> None:
        self.state = state

    def collect(self) -> Iterator[Metric]:
        live_model, stores = self.state.live, self.state.stores
        yield GaugeMetricFamily("saevx_live_queue", "Live requests that wait or are answered.", live_model.waiting)
        about = "1 for the state in which a store's model is."
        model = GaugeMetricFamily("saevx_model_state", about, labels=("store", "state"))
        for name in stores:
            for state in MODEL_STATES:
                model.add_metric((name, state), float(live_model.state_of(name).state == state))
        yield model
        yield GaugeMetricFamily("saevx_stores_unavailable", "Stores that cannot be read.", len(self.state.unavailable))
        size = GaugeMetricFamily("saevx_cache_bytes", "Bytes held by caches bounded in bytes.", labels=("cache",))
        size.add_metric(("uploads",), self.state.uploads.images.size)
        size.add_metric(("events",), EVENT_BYTES * sum(store.recomputed.events.size for store in stores.values()))
        size.add_metric(("pages",), sum(store.pages.size for store in stores.values()))
        yield size
        entries = GaugeMetricFamily("saevx_cache_entries", "Entries of caches bounded in number.", labels=("cache",))
        for cache in ("queries", "explanations", "readings"):
            entries.add_metric((cache,), sum(getattr(store.recomputed, cache).size for store in stores.values()))
        yield entries
