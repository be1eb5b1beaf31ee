"""All settings of the server. `saevx serve` fills them from its options; each can also be set by an environment
variable of the same name with the prefix SAEVX_."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from precompute.errors import SaevxError, first_line
from precompute.options.shared import Dtype, Quantize, SaeFormat
from precompute.utils.command_line import Device, DeviceMap, UrlPath

EVERY = "*"
BROWSER_HEADERS = {
    "authorization", "cache-control", "connection", "cookie", "dnt", "host", "if-modified-since", "if-none-match",
    "keep-alive", "origin", "pragma", "priority", "range", "referer", "te", "transfer-encoding", "upgrade",
    "upgrade-insecure-requests", "user-agent",
}  # fmt: skip
"""Headers that any visitor's browser sends: as the header of a proxy's login each of them would let everybody in."""
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,79}")
_HOST = re.compile(r"(\[[0-9a-z:.%]+\]|[^\s:/?#@\[\]\\]+)(?::(\d{1,5}))?", re.IGNORECASE)


def _check_host(name: str) -> str:
    host = name.strip().lower()
    if host != EVERY and split_host(host.removeprefix("*.")) is None:
        raise ValueError(f"{name!r} is not a host name: give the name alone, such as explorer.example.org")
    return host


AllowedHost = Annotated[str, AfterValidator(_check_host)]
"""A name, a name with a port, `*.DOMAIN` for every name below DOMAIN, or `*` for any name."""


def _check_proxy_header(name: str) -> str:
    sent_by_browsers = name.lower() in BROWSER_HEADERS or name.lower().startswith(("accept", "content-", "sec-"))
    if not _HEADER.fullmatch(name) or sent_by_browsers:
        shown_name = name if len(name) <= 80 else f"{name[:80]}…"
        raise ValueError(f"{shown_name!r} is no header that only a proxy sets: give its name, such as X-Forwarded-User")
    return name


ProxyHeader = Annotated[str, AfterValidator(_check_proxy_header)]
Megabytes = Annotated[float, Field(gt=0, le=100_000)]


def split_host(text: str) -> tuple[str, int | None] | None:
    """Name in lower case, without a final dot, and port; None if it is not a valid `Host`."""
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    return match[1].lower().rstrip("."), int(match[2]) if match[2] else None


def is_address(name: str) -> bool:
    """Whether the name is an IP address, in brackets or not."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    address = host.strip("[]")
    return host == "localhost" or (is_address(address) and ipaddress.ip_address(address).is_loopback)


class ServerOptions(BaseModel):
    """What both `saevx serve` and the environment set."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    live: bool = True
    """Load the model, for search by image, scoring and steering; everything else works without it."""
    root_path: UrlPath = ""
    """Path under which a proxy shows this server, such as /saevx."""
    allowed_host: Annotated[list[AllowedHost], NoDecode] = Field(default_factory=list)
    """Further name by which browsers may reach the server, such as the name of a proxy; may be given several times.
    *.DOMAIN is every name below DOMAIN, * is any name. The machine's names and IP addresses always work."""
    model: str | None = None
    """Model folder or hub id for live requests; default: the one the store was made with."""
    sae: str | None = None
    """SAE folder for live requests; default: the one the store was made with."""
    sae_format: SaeFormat = "auto"
    """File format of that SAE, as for `saevx precompute`; auto: as in the store, or recognised from its files."""
    device: Device = "auto"
    """Where the live model runs: auto (CUDA, else CPU), cpu, cuda, cuda:1, mps."""
    dtype: Dtype = "auto"
    """Number type of the live model; auto is bfloat16 on a GPU and float32 elsewhere."""
    device_map: DeviceMap | None = None
    """Device map of accelerate, such as auto, to spread the model over several devices."""
    quantize: Quantize | None = None
    """Load the model in 8bit or 4bit (needs bitsandbytes)."""
    queue: int = Field(default=8, ge=1)
    """Live requests that may wait; further requests are answered 503."""
    queue_per_client: int = Field(default=4, ge=1)
    """Of those, how many one visitor may have at once; further ones are answered 429. Visitors are told apart by the
    name of --trust-proxy-auth, or else by address (IPv6: by its first 64 bits); requests from this machine itself are
    not counted."""
    rate_per_client: int = Field(default=60, ge=0)
    """Live requests of one visitor a minute; further ones are answered 429. As many may come at once. 0: no limit."""
    annotations: str | None = None
    """Database for what people write about the stores, as SQLAlchemy takes it, such as postgresql://user@host/name;
    default: an SQLite file beside each store, STORE.annotations.sqlite."""
    read_only: bool = False
    """Nobody writes labels, notes, lists or marks; they are shown. For public demos."""
    max_upload_mb: Megabytes = 16
    """Largest request body, in MB."""
    max_uploads_mb: Megabytes = 256
    """Memory for images that visitors upload, in MB: each has an address until the server stops or newer ones need the
    room. They are never written to disk."""

    log_json: bool = False
    """Write the log as JSON, a line for each request and each warning, with the request's id. Addresses, parameters and
    texts are not in it."""
    token: SecretStr | None = None
    """What visitors must give once, at least 8 characters. Default: none where only this machine reaches the server,
    else one that is made and printed at the start. Other users of this machine see options of commands: use
    --token-file or the variable SAEVX_TOKEN."""
    token_file: Path | None = None
    """File that holds the token."""
    trust_proxy_auth: ProxyHeader | None = None
    """Header that a proxy in front of this server sets for visitors that it has logged in, such as X-Forwarded-User:
    such requests need no token. The proxy must remove it from what visitors send."""


class Settings(ServerOptions, BaseSettings):
    """Settings of a running server. In the environment, several values are separated by commas."""

    model_config = SettingsConfigDict(
        env_prefix="SAEVX_", env_ignore_empty=True, use_attribute_docstrings=True, extra="forbid", allow_inf_nan=False
    )

    stores: list[Path] = Field(default_factory=list)
    """Finished store folders; the first is the default."""
    max_megapixels: float = Field(default=64, gt=0, le=100_000)
    """Largest image, in millions of unpacked pixels; the pass takes up to 64."""

    def secret_token(self) -> str | None:
        """The token, of the option or of its file.

        Raises:
            SaevxError: the file cannot be read, or what is given is no token.
        """
        text = self.token.get_secret_value() if self.token else None
        if self.token_file is not None:
            try:
                with self.token_file.open(encoding="utf-8") as file:
                    text = file.read(1000).strip()  # a device would never end
            except (OSError, UnicodeDecodeError) as error:
                raise SaevxError(
                    f"The token file {self.token_file} cannot be read ({first_line(error)}): give a text file that "
                    "holds the token."
                ) from error
        if text is not None and not (8 <= len(text) <= 200 and text.isprintable()):
            source = "--token" if self.token_file is None else f"The token file {self.token_file}"
            raise SaevxError(f"{source} holds no token: give 8 to 200 characters in one line.")
        return text

    @field_validator("allowed_host", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
