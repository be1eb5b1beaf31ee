"""What one run of the pass is made of: the options, and the SAE, the model and the planned data that they name. How a
run that was killed goes on is in collector.py."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from precompute.collect.collector import Collector
from precompute.data.batches import Batching, Plan, plan_rows, shuffle_images
from precompute.data.records import Data
from precompute.data.rows import read
from precompute.model.identity import model_sha256
from precompute.model.loader import load_model
from precompute.model.mllm import Mllm
from precompute.products.setting import Products
from precompute.sae.sae import SaeV
from precompute.utils.progress import say

if TYPE_CHECKING:
    from precompute.options.precompute import PrecomputeOptions


class Session:
    """Model, SAE and data of a run, each loaded when it is first needed, unless it is handed in.

    Args:
        rows: the data as it is read. data_and_plan: its usable rows, and the order in which they are run.
    """

    def __init__(
        self,
        options: PrecomputeOptions,
        *,
        sae: SaeV | None = None,
        mllm: Mllm | None = None,
        rows: Data | None = None,
        data_and_plan: tuple[Data, Plan] | None = None,
    ) -> None:
        self.options, self.part = options, options.part
        for name, value in {"sae": sae, "mllm": mllm, "rows": rows, "data_and_plan": data_and_plan}.items():
            if value is not None:
                setattr(self, name, value)  # a cached property that is set is not computed
        self.products = Products(exact=options.exact_products)

    def with_sae(self, sae: SaeV | None) -> Session:
        """The same model and data with another SAE; None is the SAE that the options name."""
        return Session(self.options, sae=sae, mllm=self.mllm, rows=self.rows, data_and_plan=self.data_and_plan)

    @cached_property
    def sae(self) -> SaeV:
        o = self.options
        sae = SaeV.load(o.sae, o.device, layer=o.layer, format=o.sae_format)
        sae.products = self.products
        if sae.layer_warning is not None:
            say(sae.layer_warning)
        return sae

    @cached_property
    def mllm(self) -> Mllm:
        o = self.options
        mllm = load_model(o.model, o, layer=self.sae.layer, full=o.nll)
        self.sae.check(mllm.d_model)
        return mllm

    @cached_property
    def model_sha256(self) -> str:
        """The fingerprint against which a server checks its live model."""
        return model_sha256(self.options.model)

    @cached_property
    def rows(self) -> Data:
        """The data as it is read, before it is known which rows the model can take."""
        o = self.options
        folder = o.out.parent  # where the store is made there is space for the rows too
        data = read(o.data, o.columns, folder if folder.is_dir() else None)
        return data._replace(rows=shuffle_images(data.rows, o.seed)) if o.shuffle_images else data

    @property
    def batch_tokens(self) -> int:
        """On a CPU a larger batch is slower: the output of a layer no longer fits its caches."""
        return self.options.batch_tokens or (1024 if self.mllm.device.type == "cpu" else 4096)

    @cached_property
    def data_and_plan(self) -> tuple[Data, Plan]:
        """The usable rows, and the order in which they are run."""
        o = self.options
        batching = Batching(self.batch_tokens, o.seed, o.shard_samples, o.ds)
        return plan_rows(self.mllm, self.rows, o.data, batching, id_column=o.id_column)

    def collector(self) -> Collector:
        """The pass over the planned batches."""
        o = self.options
        data_and_plan, measures = self.data_and_plan, (o.nll, o.sink_multiple)
        return Collector(self.mllm, self.sae, *data_and_plan, self.part, o.seed, *measures, True, o.text_alone)

    def step_options(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """What the steps after `collect` are called with, besides the unfinished store and its manifest.

        `directions` returns float32 [F, d], with the scale of the store in it; `logit_lens` the final norm's weight [d]
        (or None) and the unembedding [V, d].
        """
        o = self.options

        def directions() -> Any:
            self.sae.fold_factor_of_store(manifest)
            return self.sae.directions_fd.detach().cpu().numpy()

        def logit_lens() -> tuple[Any, Any]:
            weight_d, unembed_vd = self.mllm.logit_lens_weights()
            return (None if weight_d is None else weight_d.numpy()), unembed_vd.numpy()

        return {
            "seed": o.seed, "delta": o.delta, "omega": o.omega, "repeat_samples": o.repeat_samples,
            "labeller": o.labeller, "labeller_model": o.labeller_model, "directions": directions,
            "logit_lens": logit_lens, "products": self.products,
        }  # fmt: skip
