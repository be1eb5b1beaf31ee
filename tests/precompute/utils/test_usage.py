"""A command line that is wrong is answered with status 2 and one sentence that names the option as it is typed."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from backend.commands import Saevx, Serve
from backend.settings import Settings
from precompute.cli import run
from precompute.options.precompute import PrecomputeOptions
from precompute.options.train import TrainOptions
from precompute.utils.command_line import CommandOptions, expand_path, options_of
from tests.helpers.in_process import saevx

PASS = ("precompute", "x", "--model", "m", "--sae", "s", "--out", "o")
TRAIN = ("train", "x", "--model", "m", "--out", "o", "--layer", "1")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["filter", "x", "--by", "l0", "--keep", "150"], "--keep takes a number that is at most 100, not 150."),
        (["filter", "x", "--by", "l0", "--keep", "many"], "--keep takes a number, not many."),
        (["filter", "x", "--by", "l0", "--keep", "nan"], "--keep takes a finite number, not nan."),
        ([*PASS, "--layer", "-1"], "--layer takes a number that is at least 0, not -1."),
        ([*PASS, "--batch-tokens", "0"], "--batch-tokens takes a number that is at least 1, not 0."),
        ([*PASS, "--batch-tokens", "1.5"], "--batch-tokens takes a whole number, not 1.5."),
        ([*PASS, "--seed", "-1"], "--seed takes a number that is at least 0, not -1."),
        ([*PASS, "--seed", str(2**64)], f"--seed takes a number below 2⁶³, not {2**64}."),
        ([*PASS, "--shard-samples", str(10**30)], f"--shard-samples takes a number below 2⁵³, not {10**30}."),
        ([*PASS, "--sinks", "nan"], "--sinks takes a finite number or keep, not nan."),
        ([*PASS, "--sinks", "-1"], "--sinks takes a number above 0 or keep, not -1."),
        ([*PASS, "--sinks", "some of"], "--sinks takes a number or keep, not 'some of'."),
        ([*PASS, "--delta", "nan"], "--delta takes a finite number, not nan."),
        ([*PASS, "--delta", "-0.5"], "--delta takes a number that is at least 0, not -0.5."),
        ([*PASS, "--max-store-gb", "inf"], "--max-store-gb takes a finite number, not inf."),
        ([*PASS, "--max-store-gb", "0"], "--max-store-gb takes a number above 0, not 0."),
        ([*PASS, "--dtype", "float64"], "--dtype takes auto, float32, bfloat16 or float16, not float64."),
        ([*PASS, "--workers", "2"], "--workers goes with --ray: add --ray local for processes of this machine."),
        ([*PASS, "--ray", "local", "--workers", "0"], "--workers takes a number that is at least 1, not 0."),
        ([*PASS, "--colour", "3"], "There is no option or argument --colour 3 here: see `saevx precompute --help`."),
        ([*PASS[:-1], ""], "--out takes a path that is not empty."),
        ([*PASS[:-1], "a\udcff"], "--out takes a path that is valid Unicode, not 'a\\udcff': rename the folder."),
        ([*PASS, "--split", "a\udcff"], "--split takes a text that is valid Unicode, not 'a\\udcff'."),
        (
            ["filter", "x", "--by", "l0", "--drop-flags", "blank", "--drop-flags", "\udcff"],
            "--drop-flags takes a text that is valid Unicode, not '\\udcff'.",
        ),
        (["precompute", "", *PASS[2:]], "DATA takes a path that is not empty."),
        ([*TRAIN, "--expansion", "inf"], "--expansion takes a finite number, not inf."),
        ([*TRAIN, "--lr", "1e300"], "--lr takes a number that is at most 1000, not 1e300."),
        ([*TRAIN, "-k", "0"], "-k takes a number that is at least 1, not 0."),
        ([*TRAIN, "--widths", "8,x"], "--widths takes a whole number, not x."),
        ([*TRAIN, "--lr-decay", "1"], "--lr-decay takes a number below 1, not 1."),
        (
            ["patches", "x", "--store", "s", "--out", "o", "--keep", "nan"],
            "--keep takes finite numbers, not nan: see `saevx patches --help`.",
        ),
        (["patches", "x", "--store", "s", "--out", "o", "--keep", "75,-5"], "--keep takes a number above 0, not -5."),
        (["serve", "x", "--host", ""], "--host takes a text that is not empty."),
        (["serve", "x", "--port", "99999"], "--port takes a number that is at most 65535, not 99999."),
        (["serve", "x", "--port"], "--port needs a value (expected one argument): see `saevx serve --help`."),
        (["serve", "x", "--live=perhaps"], "--live or --no-live takes no value, so leave out 'perhaps'."),
        (["serve", "x", "--root-path", "a b"], "--root-path takes the path of a URL, such as /saevx, not 'a b'."),
        (
            ["serve", "x", "--root-path", "//elsewhere"],
            "--root-path takes the path of a URL, such as /saevx, not '//elsewhere'.",
        ),
        (["serve", "x", "--max-upload-mb", "nan"], "--max-upload-mb takes a finite number, not nan."),
        *(
            ([command, "x", option, "1e308"], f"{option} takes a number that is at most 100000, not 1e308.")
            for command in ("serve", "mcp")
            for option in ("--max-upload-mb", "--max-uploads-mb")
        ),
        *(
            (
                ["serve", "x", "--trust-proxy-auth", name],
                f"--trust-proxy-auth {name!r} is no header that only a proxy sets: give its name, such as "
                "X-Forwarded-User.",
            )
            for name in ("a b", "X-User:", "é", "Host", "cookie", "User-Agent", "Accept-Language", "Sec-Fetch-Site")
        ),
        (["serve", "x", ""], "STORES takes a path that is not empty."),
        *(
            ([*PASS, option, ""], f"{option} takes a text that is not empty.")
            for option in ("--image-column", "--text-column", "--id-column", "--split", "--name", "--geometry", "--ray")
        ),
        ([*TRAIN, "--sae-option", ""], "--sae-option takes a text that is not empty."),
        (["filter", "x", "--by", ""], "--by takes a text that is not empty."),
        ([*PASS, "--keep", ""], "There is no option or argument --keep here: see `saevx precompute --help`."),
        ([*PASS, "--batch-tokens", ""], "--batch-tokens takes a whole number, not ''."),
        ([*PASS, "--quantize", ""], "--quantize takes 8bit or 4bit, not ''."),
        *(
            (
                [*PASS, "--device", device],
                f"--device takes auto, cpu, cuda, mps or a GPU's number such as cuda:1, not {text}.",
            )
            for device, text in (("abc", "abc"), ("cpu:7", "'cpu:7'"), ("cuda:-1", "'cuda:-1'"), ("meta", "meta"))
        ),
        (
            ["serve", "x", "--device", "gpu"],
            "--device takes auto, cpu, cuda, mps or a GPU's number such as cuda:1, not gpu.",
        ),
        ([*PASS, "--device-map", "{}"], "--device-map takes auto, balanced, balanced_low_0 or sequential, not '{}'."),
        (["serve"], "STORES is missing: see `saevx serve --help`."),
        (["precompute"], "DATA, --model, --sae, --out are missing: see `saevx precompute --help`."),
        (["experiment"], "Choose one of filtering, figure3, hallucination: see `saevx experiment --help`."),
        (["--wrong"], "There is no option or argument --wrong here: see `saevx --help`."),
    ],
)
def test_the_option_is_named_as_it_is_typed(args: list[str], sentence: str) -> None:
    done = saevx(*args)
    assert (done.status, done.err) == (2, f"saevx: {sentence}\n")


def test_a_command_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Saevx, ["dance"]) == 2
    assert capsys.readouterr().err.startswith("saevx: There is no command 'dance': choose one of demo, train, ")


def test_no_option_takes_a_number_that_is_none() -> None:
    """Every command's every option, so that a new one does not forget it."""
    commands = [field.annotation for field in Saevx.model_fields.values()]
    classes = [getattr(command, "__args__", (None,))[0] for command in commands]
    assert len(classes) == len(Saevx.model_fields)
    apart = [one for one in classes if not issubclass(one, CommandOptions)]
    assert [one.__name__ for one in apart] == ["Experiment"]  # it has none of its own
    assert all(one.model_config.get("allow_inf_nan") is False for one in (*classes[:-1], Settings))
    for bad in ("nan", "inf", "-inf", "1e999"):
        with pytest.raises(ValidationError):
            Settings(max_megapixels=bad)  # type: ignore[arg-type]


def test_lists_are_taken_as_they_are() -> None:
    """Neither commas nor JSON are read in what is given one by one."""
    made: list[object] = []

    class Told(Saevx):
        def cli_cmd(self) -> None:
            made.append(self)

    assert run(Told, ["train", "x", "--model", "m", "--out", "o", "--layer", "1", "--sae-option", "a=[1,2]",
                      "--sae-option", 'b={"c": "d,e"}']) == 0  # fmt: skip
    assert run(Told, ["serve", "a,b", '[1, "x"]', "~root,", "null"]) == 0
    first, second = made
    assert isinstance(first, Saevx) and first.train is not None
    assert first.train.sae_option == ["a=[1,2]", 'b={"c": "d,e"}']
    assert isinstance(second, Saevx) and second.serve is not None
    assert second.serve.stores == [Path("a,b"), Path('[1, "x"]'), Path("~root,"), Path("null")]
    assert run(Told, ["patches", "x", "--store", "s", "--out", "o", "--keep", "75,50", "--keep", "10"]) == 0
    third = made[2]
    assert isinstance(third, Saevx) and third.patches is not None and third.patches.keep == [75, 50, 10]


def test_a_tilde_is_expanded_everywhere_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    options = PrecomputeOptions(
        data="~/pairs/*.tar", model="~/m", sae="~", out=Path("~/o"), image_folder=Path("~/i"), name="~"
    )
    assert (options.data, options.model, options.sae) == (f"{tmp_path}/pairs/*.tar", f"{tmp_path}/m", str(tmp_path))
    assert (options.out, options.image_folder, options.name) == (tmp_path / "o", tmp_path / "i", "~")
    assert Serve(stores=[Path("~/a"), Path("b")]).stores == [tmp_path / "a", Path("b")]
    train = TrainOptions(data="owner/name", model="a/~", out="~no-such-user/x", layer=1)  # type: ignore[arg-type]
    assert (train.data, train.model, train.out) == ("owner/name", "a/~", Path("~no-such-user/x"))
    assert expand_path(None) is None and expand_path(7) == 7


def test_options_of_a_command() -> None:
    assert {"batch_tokens", "dtype"} <= options_of(Saevx, ["precompute", "x", "--nll"])
    assert "keep" in options_of(Saevx, ["experiment", "filtering"]) and options_of(Saevx, ["--help"]) == set()


def test_a_variable_that_is_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEVX_MAX_MEGAPIXELS", "-1")
    done = saevx("serve", tmp_path)
    assert (done.status, done.err) == (2, "saevx: SAEVX_MAX_MEGAPIXELS takes a number above 0, not -1.\n")
    monkeypatch.setenv("SAEVX_STORES", "a,b")
    done = saevx("serve", tmp_path)
    assert (done.status, done.err) == (2, "saevx: SAEVX_STORES cannot be read: give its value as JSON.\n")


def test_what_a_library_refuses_is_no_wrong_usage(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pydantic's error out of the middle of a command is told as any other failure."""

    class Told(Saevx):
        def cli_cmd(self) -> None:
            Settings(queue=0)

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert run(Told, ["verify", "x"]) == 1
    assert capsys.readouterr().err.startswith("saevx: The command failed (ValidationError: ")
