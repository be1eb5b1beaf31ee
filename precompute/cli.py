"""The offline commands `saevx train`, `evaluate`, `precompute`, `controls`, `score`, `filter`, `patches`,
`verify` and `migrate`; backend/cli.py puts them beside the server's."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from precompute.errors import SaevxError, first_line
from precompute.options.controls import ControlsOptions
from precompute.options.evaluate import EvaluateOptions
from precompute.options.patches import PatchesOptions
from precompute.options.precompute import PrecomputeOptions
from precompute.options.score import ScoreOptions
from precompute.options.train import TrainOptions
from precompute.utils.command_line import COMMAND_CONFIG, CommandOptions, Texts, WrongUsage, options_of, run_command
from precompute.utils.failures import sentence, sentence_of_cause, without_secrets, write_log
from precompute.utils.files import atomic_write, write_text
from precompute.utils.ownership import exclusive_file
from precompute.utils.processes import interrupts
from precompute.utils.progress import harmless

CLI_CONFIG = SettingsConfigDict(**COMMAND_CONFIG, cli_prog_name="saevx")


class Precompute(PrecomputeOptions):
    """Make a store: every pair through the model and the SAE-V once, and from it all that pages show."""

    def cli_cmd(self) -> None:
        from precompute.pipeline import precompute

        store = precompute(self)
        if not self.dry_run:
            print(store)


class Train(TrainOptions):
    """Train an SAE-V, or an SAE, on a layer of a model; a run that was killed goes on when it is repeated."""

    def cli_cmd(self) -> None:
        from precompute.training.train import train

        print(train(self))


class Evaluate(EvaluateOptions):
    """Measure an SAE inside a model: loss recovered, FVU, L0 and dead features, overall and per modality."""

    def cli_cmd(self) -> None:
        from precompute.training.evaluate import evaluate

        def report() -> str:
            return json.dumps(evaluate(self), indent=1, ensure_ascii=False) + "\n"

        if self.out is None:
            sys.stdout.write(report())
            return
        with exclusive_file(self.out):
            text = report()
            try:
                write_text(self.out, text)
            except OSError:
                sys.stdout.write(text)  # rather than lose the work of hours
                raise


class Controls(ControlsOptions):
    """Measure how many features would be cross-modal by chance: captions exchanged, random directions, text alone."""

    def cli_cmd(self) -> None:
        from precompute.controls.run import controls

        print(controls(self))


class Verify(CommandOptions):
    """Check a finished store: every file against its checksum, every count and example against the events."""

    store: CliPositionalArg[Path]
    """Folder of the store."""

    def cli_cmd(self) -> None:
        from precompute.store.making.verify import verify
        from precompute.store.opening import damaged_error

        checks = verify(self.store)
        for check in checks:
            print(check)
        failures = [check for check in checks if not check.ok]
        if failures:
            raise damaged_error(self.store, f"{failures[0].name}: {failures[0].detail}")


class Migrate(CommandOptions):
    """Copy an older store and add what this version stores; the older one stays as it is."""

    store: CliPositionalArg[Path]
    """Folder of the older store."""
    out: Path
    """Folder of the new store; it must not exist."""

    def cli_cmd(self) -> None:
        from precompute.migrate import migrate

        print(migrate(self.store, self.out))


class Score(ScoreOptions):
    """Score any number of new pairs with the ω of a finished store: id, all scores and flags of each."""

    def cli_cmd(self) -> None:
        from precompute.scoring.new_data import score_data

        print(score_data(self))


class Filter(CommandOptions):
    """Keep the best pairs by a score, as JSONL that `datasets` loads back, with the rows' own fields."""

    store: CliPositionalArg[Path]
    """Folder of a store, or a file that `saevx score` wrote."""
    by: str
    """Score to keep by, such as pooled-cosine; the quality page shows how well each tells good from bad. With a store
    also facility-location: the set that stands best for all pairs."""
    keep: float = Field(default=50.0, ge=0, le=100)
    """Percent of the pairs to keep, 0–100."""
    drop_flags: Texts = Field(default_factory=list)
    """Leave out samples with any of these flags; give it several times."""
    out: Path | None = None
    """File to write; default: standard output."""
    format: Literal["jsonl", "ids"] = "jsonl"
    """jsonl: one object a line with the row's own fields; ids: one id a line."""

    def cli_cmd(self) -> None:
        from precompute.scoring.filter import filter_file, filter_store
        from precompute.store.reader import Store

        choice: dict[str, Any] = {"by": self.by, "keep": self.keep, "flags": self.drop_flags, "format": self.format}

        def lines() -> Iterable[str]:
            if self.store.is_file():
                return filter_file(self.store, **choice)
            return filter_store(Store.open(self.store), **choice)

        if self.out is None:
            sys.stdout.writelines(lines())
            return
        with exclusive_file(self.out), atomic_write(self.out, "w") as file:
            file.writelines(lines())


class Patches(PatchesOptions):
    """Measure how much of a task a model can still do with the best patches of each image alone."""

    def cli_cmd(self) -> None:
        from precompute.patches.run import patches_data

        print(patches_data(self))


def run(app: type[BaseSettings], args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status: 0 done, 1 failed with one line on standard error, 2 wrong usage,
    130 interrupted, 143 terminated. Whatever is raised ends here."""
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        run_command(app, arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # so that what cannot be written is known here
        interrupts.raise_lost()
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if (number := interrupts.answer(error)) is not None:
            say_error("terminated" if number == signal.SIGTERM else "interrupted")
            return 128 + number  # as a shell has it
        return exit_status(error, app, arguments)


def exit_status(error: BaseException, app: type[BaseSettings], arguments: Sequence[str]) -> int:
    """Say why a command ends with this error. Returns its exit status."""
    if isinstance(error, BrokenPipeError):
        # The reader of a pipe has left, as `head` does; Python must not complain again at exit.
        drop_output()
        return 0
    if isinstance(error, WrongUsage):
        say_error(str(error))
        return 2
    options = options_of(app, arguments)
    if isinstance(error, SaevxError):
        say_error(sentence_of_cause(error, options) or str(error))
        return 1
    if isinstance(error, OSError):
        drop_output()
    known_sentence = sentence(error, options=options) or damage_of(arguments)
    say_error(known_sentence or unexpected_sentence(error, arguments))
    return 1


def damage_of(arguments: Sequence[str]) -> str | None:
    """The sentence for a store among the arguments whose files are not those that were sealed, from which any error may
    come; None where there is none."""
    from precompute.store.making.sealing import damage_sentence

    for argument in arguments:
        store = Path(argument.partition("=")[2] if argument.startswith("--") and "=" in argument else argument)
        with contextlib.suppress(SaevxError, OSError, ValueError):  # no store; the first error is to be told
            if damage := damage_sentence(store):
                return damage
    return None


def unexpected_sentence(error: BaseException, arguments: Sequence[str]) -> str:
    """The sentence for what nobody has foreseen."""
    log = write_log(error, arguments)
    where = f"The details are in {log}." if log else "No file could be written with the details."
    return without_secrets(f"The command failed ({type(error).__name__}: {first_line(error)}). {where}")


def drop_output() -> None:
    """What standard output still holds goes nowhere, where it cannot be written."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_error(message: str) -> None:
    words = [word if len(word) <= 400 else f"{word[:300]}…{word[-60:]}" for word in message.split()]
    with contextlib.suppress(OSError):  # nobody listens any more
        print(harmless(f"saevx: {' '.join(words)}"), file=sys.stderr)
