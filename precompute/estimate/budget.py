"""What a run will take, foretold, and whether some store fits --max-store-gb."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from precompute.errors import SaevxError
from precompute.estimate import forecast
from precompute.estimate.forecast import Forecast
from precompute.estimate.rehearse import Rehearsal, rehearse
from precompute.options.precompute import Options
from precompute.sae.subset import config_of, narrow
from precompute.store.making import trim
from precompute.store.making.unfinished import Collected
from precompute.utils import memory
from precompute.utils.progress import human, say

if TYPE_CHECKING:
    from precompute.pipeline import Run


class Budget(NamedTuple):
    """A forecast, with what it was made from."""

    forecast: Forecast
    rehearsal: Rehearsal
    n_rows: int
    device: str

    def text(self, o: Options) -> str:
        said = []
        try:
            kept = trim.choose(o.events, o.max_store_gb, self.forecast.of)
        except SaevxError as error:
            kept, said = o.events or "none", [str(error)]
        has, need = memory.total(), self.forecast.memory
        if need > has:
            alone = self.forecast.sae
            what = f"the SAE alone takes {human(alone)}" if alone > has else f"this run takes {human(need)}"
            said.append(
                f"This machine has {human(has)} of memory in all, and {what}: take a smaller SAE or a larger machine."
            )
        return "\n".join([forecast.said(self.forecast, kept, self.device, self.n_rows, self.rehearsal), *said])


def forecast_of(run: Run) -> Budget:
    """Time, memory and bytes, from every step run for real on a few samples. Leaves the run's model loaded."""
    o = run.options
    sae, stride = narrow(o.sae, o.layer, o.device, o.sae_format)
    n_features = int((config_of(o.sae) or {}).get("d_sae") or 0) * (2 if sae.signed else 1)
    n_features = n_features if stride > 1 and n_features else sae.n_features * stride
    run.sae = sae  # its few features stand for all while this lasts
    try:
        mllm = run.mllm
        data, plan = run.data_and_plan
        startup = time.time() - memory.begun()
        given = {
            **run.given(), "directions": lambda: sae.directions_fd.detach().cpu().numpy(), "labeller": None
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            found = rehearse(
                mllm, sae, stride, data, plan, Path(folder), given, seed=o.seed, nll=o.nll, sinks=run.sinks, ds=o.ds
            )
    finally:
        del run.sae
    vocab = int(mllm.model.get_input_embeddings().weight.shape[0])
    told = forecast.foretell(
        found, plan, ds=o.ds, n_features=n_features, vocab=vocab, d_model=mllm.d_model, startup=startup
    )
    return Budget(told, found, data.n_rows, str(mllm.device))


def check(run: Run) -> Forecast | None:
    """Before the pass: whether some store, or the one asked for, is foretold to fit. The forecast, where there is a
    limit.

    Raises:
        SaevxError: it is not.
    """
    o = run.options
    if o.max_store_gb is None:
        return None
    told = forecast_of(run).forecast
    kept = trim.choose(o.events, o.max_store_gb, told.of)
    say(f"events: {kept}, as foretold")
    return told


def check_again(options: Options, foretold: Forecast, data: Collected) -> None:
    """After the pass, when the events are known: whether some store, or the one asked for, still fits.

    Raises:
        SaevxError: it does not; the pass is kept.
    """
    whole, examples, none = (foretold.of[kept] for kept in ("all", "examples", "none"))
    events = trim.event_bytes(data.events, None)
    share = (examples - none) / max(whole - none, 1)
    grown = events - (whole - none)
    sizes = {"all": whole + grown, "examples": examples + grown * share, "none": none}
    trim.choose(options.events, options.max_store_gb, cast("dict[trim.EventChoice, float]", sizes))
