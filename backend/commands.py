"""The commands of `saevx`: those of the server, and those of the offline part. Heavy modules are imported by the
commands that need them, so that `--help` answers at once."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, CliSubCommand, CliUnknownArgs

from backend.settings import ServerOptions
from precompute.cli import CLI_CONFIG, Controls, Evaluate, Filter, Migrate, Patches, Precompute, Score, Train, Verify
from precompute.errors import SaevxError, checkout_only
from precompute.options.annotations import AnnotationsOptions
from precompute.options.static_site import StaticSiteOptions
from precompute.utils.command_line import CommandOptions, Device, Paths, Texts, from_environment
from precompute.utils.ownership import exclusive_file

ROOT = Path(__file__).parents[1]
if (ROOT / "precompute/experiments/cli.py").is_file():
    from precompute.experiments.cli import Experiment
else:

    class Experiment(CommandOptions):  # type: ignore[no-redef]
        """Rerun one of the paper's experiments. Needs a checkout: experiments are not in the package."""

        arguments: CliUnknownArgs

        def cli_cmd(self) -> None:
            raise SaevxError(checkout_only("saevx experiment"))


Port = Field(default=8000, ge=0, le=65535)


class Serve(ServerOptions, CommandOptions):
    """Show finished stores in the browser and over the API."""

    stores: CliPositionalArg[Paths]
    """Folders of finished stores; the first is the default."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every address of this machine. Where others reach it, visitors need the token
    that is printed at the start (--token)."""
    port: int = Port
    """Port to listen on; 0 takes a free port."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that answer; the first has the model and what visitors upload, the others lead to it. For many visitors
    at once, on as many cores; not on Windows."""

    def cli_cmd(self) -> None:
        from backend.serve import serve
        from backend.settings import Settings

        start_options = {"host", "port", "workers"}
        options = self.model_dump(exclude=start_options, exclude_unset=True)  # the environment may set others
        serve(from_environment(Settings, **options), self.host, self.port, workers=self.workers)


class Mcp(ServerOptions, CommandOptions):
    """Let agents read a store, search it and steer its model, by the Model Context Protocol. Needs `saevx[mcp]`."""

    store: CliPositionalArg[Path]
    """A finished store."""
    transport: Literal["stdio", "http"] = "stdio"
    """stdio: on standard input and output, for a client that starts this command; http: at /mcp, beside the pages."""
    host: str = "127.0.0.1"
    """Address to listen on, with http; as for `saevx serve`."""
    port: int = Port
    """Port to listen on, with http; 0 takes a free port."""

    def cli_cmd(self) -> None:
        try:
            from backend.mcp.server import attach, serve_stdio
        except ImportError as error:
            raise SaevxError("`saevx mcp` needs the official SDK: install it with pip install 'saevx[mcp]'.") from error
        from backend.app import create_app
        from backend.serve import serve
        from backend.settings import Settings

        options = self.model_dump(exclude={"store", "transport", "host", "port"}, exclude_unset=True)
        settings = from_environment(Settings, stores=[self.store], **options)
        if self.transport == "http":
            serve(settings, self.host, self.port, attach)
        else:
            serve_stdio(create_app(settings))


class Demo(CommandOptions):
    """Make the demo – a small real model, its SAE-V, images, a store – and open it. A second run makes
    nothing twice."""

    dir: Path = Path("demo")
    """Folder for the model, the SAE, the data and the store."""
    samples: int = Field(default=1500, ge=20)
    """Number of pairs to draw; a larger number begins with the same pairs."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Port
    """Port to listen on; 0 takes a free port."""
    serve: bool = True
    """Open the explorer at the end; --no-serve only makes the folder."""

    def cli_cmd(self) -> None:
        from backend.demo import make
        from backend.serve import bind

        if self.serve:
            bind(self.host, self.port).close()  # so that a taken port is reported before the demo is made
        store = make(self.dir, self.samples)
        if self.serve:
            Serve(stores=[store], host=self.host, port=self.port).cli_cmd()


class Annotations(AnnotationsOptions):
    """Write the annotations of a store to a file, read them from one, or carry them over to a store that was made
    again."""

    def cli_cmd(self) -> None:
        from backend.api.annotations.command import run

        print(run(self), end="")


class Export(StaticSiteOptions):
    """Write the pages of a store that need no model as files, which any web server can show."""

    def cli_cmd(self) -> None:
        from backend.static_site.site import export

        print(export(self))


class Bench(CommandOptions):
    """Measure one of the figures of docs/performance.md. Needs a checkout: benchmarks are not in the package."""

    name: CliPositionalArg[str]
    """Name of a benchmark, a module in tests/bench such as collect."""
    demo: Path = Path("demo")
    """Folder that `saevx demo` made; it is only read."""
    out: Path | None = None
    """JSON file to write; default: docs/results/bench-NAME.json, nothing with --small."""
    wide: Path | None = None
    """Folder for the synthetic store of 65,536 features and a million pairs (9 GB) that some benchmarks need. It is
    made if it does not exist, and is not deleted; default: a temporary folder."""
    small: bool = False
    """Run the smallest size once, as a check; its figures mean nothing."""
    device: Device = "cpu"
    """Where to compute: cpu, cuda."""
    only: Texts = Field(default_factory=list)
    """Part of the benchmark `reliability` to run, such as load; may be given several times. The other rows of the
    result file stay."""

    def cli_cmd(self) -> None:
        if not (ROOT / "tests" / "bench").is_dir():
            raise SaevxError(checkout_only("saevx bench"))
        if not (self.demo / "store" / "manifest.json").is_file():
            raise SaevxError(f"{self.demo} holds no demo: make one with `saevx demo --dir {self.demo} --no-serve`.")
        sys.path.insert(0, str(ROOT))
        from tests.bench.run import Wanted, bench, names, summary_line, write

        if self.name not in names():
            raise SaevxError(f"There is no benchmark {self.name!r}: choose one of {', '.join(names())}.")
        command = ["saevx bench", self.name, *(["--device", self.device] if self.device != "cpu" else [])]
        out = self.out or (None if self.small else ROOT / "docs" / "results" / f"bench-{self.name}.json")
        with nullcontext() if out is None else exclusive_file(out):
            old_result = json.loads(out.read_text("utf-8")) if self.only and out is not None and out.exists() else None
            result = bench(self.name, Wanted(
                demo=self.demo.resolve(), small=self.small, device=self.device, command=" ".join(command),
                wide=self.wide and self.wide.resolve(), only=tuple(self.only), before=old_result,
            ))  # fmt: skip
            print(summary_line(result))
            if out is not None:
                write(result, out)


class Saevx(BaseSettings):
    """SAE-V Explorer: see what a multimodal language model sees, feature by feature."""

    model_config = CLI_CONFIG

    demo: CliSubCommand[Demo] = Field(description="Make the demo and open it.")
    train: CliSubCommand[Train] = Field(description="Train an SAE-V or SAE on a layer of a model.")
    evaluate: CliSubCommand[Evaluate] = Field(description="Measure an SAE inside a model.")
    precompute: CliSubCommand[Precompute] = Field(description="Run the offline pass over your own pairs.")
    serve: CliSubCommand[Serve] = Field(description="Show finished stores in the browser and over the API.")
    mcp: CliSubCommand[Mcp] = Field(description="Let agents read a store and steer its model.")
    controls: CliSubCommand[Controls] = Field(description="Measure how much of a verdict would be there by chance.")
    score: CliSubCommand[Score] = Field(description="Score any number of new pairs with a finished store.")
    filter: CliSubCommand[Filter] = Field(description="Keep the best pairs of a store or file by a score.")
    patches: CliSubCommand[Patches] = Field(description="Measure a task with only the best patches of each image.")
    verify: CliSubCommand[Verify] = Field(description="Check a finished store.")
    migrate: CliSubCommand[Migrate] = Field(description="Bring an older store up to this version, as a copy.")
    annotations: CliSubCommand[Annotations] = Field(description="Export, import or carry over what people wrote.")
    export: CliSubCommand[Export] = Field(description="Write a store's pages as files, to browse without a server.")
    bench: CliSubCommand[Bench] = Field(description="Measure speed and size, in a checkout.")
    experiment: CliSubCommand[Experiment] = Field(description="Rerun one of the paper's experiments on the demo.")

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)
