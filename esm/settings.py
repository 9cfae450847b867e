"""Every `ESM_*` variable: type, unit, default, why. The one place that reads the environment.

Law: an unknown `ESM_*` name is refused, because a misspelt one would be ignored otherwise; the names that Kubernetes
makes from a Service called `esm` are passed over. A variable that is set but empty counts as not set: compose files
and charts write such ones. Names are written in capitals.
"""

import difflib
import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AnyHttpUrl, Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from esm.errors import ConfigurationRefused, Problem

PREFIX = "ESM_"
DRAIN_MARGIN_S = 5
"""A grace period lasts at least the long poll and this."""

_KUBERNETES = re.compile(r"ESM_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_.*)?)")
_MIB = 1024 * 1024
BUFFER_BYTES_MIN = 32 * _MIB
"""Below it a queue's ten largest messages and a shard's largest read would wait for each other."""
_URL = TypeAdapter(AnyHttpUrl)
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):([0-9]{1,5})")
_PORT_MAX = 65_535
_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")
TAGS_MAX = 10
"""Tags that become labels: each multiplies what a metrics store keeps."""
TAG_KEY_MAX = 128
"""Characters of a tag's key. Source: lambda.md 1.2."""
OFF = "off"
_COMPARED = {"sqs_wait_s", "shutdown_grace_s", "state", "state_connection", "blobs", "blobs_connection"}
"""Settings that make sense only together: while one of them is wrong, nothing can be said of the others."""

TABLE = re.compile(r"dynamodb://[a-zA-Z0-9_.-]{3,255}")
BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w!.*'()-]+)*/?", re.ASCII)
BUCKET_MAX = 256
"""Characters of a bucket and its prefix: a key of S3 has 1,024 bytes, and the rest names what lies there."""


class Settings(BaseSettings):
    """Process settings."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    config: str = Field(
        "esm.yaml", description="The configuration: a YAML file, a folder of them, or a pattern such as `conf/*.yaml`."
    )
    region: str | None = Field(None, description="Region, where the file names none.")
    account_id: str | None = Field(None, pattern=r"^\d{12}$", description="Account, where the file names none.")
    endpoint_url: str | None = Field(None, description="Endpoint of every AWS service, where the file names none.")
    state: str = Field(
        "sqlite:///./.esm/state.db",
        description="Where positions are kept: `sqlite:///absolute/path`, `sqlite:///./relative/path`,"
        " `dynamodb://TABLE`, `memory://`.",
    )
    state_connection: str | None = Field(
        None, description="The key of `connections:` by which the table is reached; without it as the daemon itself."
    )
    blobs: str | None = Field(
        None,
        description="With `dynamodb://` only: `s3://BUCKET/PREFIX`, where values lie that an item of the table cannot"
        " hold; without it they are cut into items.",
    )
    blobs_connection: str | None = Field(
        None, description="The key of `connections:` by which the bucket is reached; default: `ESM_STATE_CONNECTION`."
    )
    worker_id: str = Field(
        default_factory=socket.gethostname,
        description="Name of this worker in leases and status, `<name>-1`.. with `--workers`; default: host name.",
    )
    metrics_address: str = Field(
        "127.0.0.1:9464", description="`host:port` of /metrics, /healthz, /readyz, /status, /lag."
    )
    api_address: str = Field("127.0.0.1:3001", description="`host:port` of Lambda's API, or `off`.")
    api_credentials_file: str | None = Field(
        None, description="Who may call the API, and what each may do; without it everybody on loopback may do all."
    )
    api_insecure: bool = Field(
        default=False, description="Lets the API listen beyond loopback without credentials: whoever reaches it rules."
    )
    api_tls_cert_file: str | None = Field(None, description="Certificate chain of the API, in PEM: TLS is spoken then.")
    api_tls_key_file: str | None = Field(None, description="The key of that certificate, in PEM and not encrypted.")
    metrics_per_shard: bool = Field(default=False, description="Adds the label `shard` to the gauges of streams.")
    metrics_tags: str = Field(
        "",
        description="Tag keys of mappings, separated by commas, at most 10; each becomes the label `tag_<key>`.",
    )
    failover_s: float = Field(
        10, ge=4, le=300, description="Seconds after which the others take over from a worker without a heartbeat."
    )
    shutdown_grace_s: float = Field(30, gt=0, le=3600, description="Seconds that a graceful stop may take.")
    sqs_wait_s: int = Field(20, ge=0, le=20, description="Seconds of SQS long polling.")
    buffer_bytes_max: int = Field(
        512 * _MIB,
        ge=BUFFER_BYTES_MIN,
        description="Bytes of records that the process, or all its workers together, may hold; at least 32 MiB each.",
    )
    checkpoint_interval_s: float = Field(
        0,
        ge=0,
        le=60,
        description="Seconds between two stored positions of a shard; 0: as they come. The default is 1 with"
        " `dynamodb://`, where each one costs.",
    )
    kinesis_reads_per_s: float = Field(
        2, gt=0, le=5, description="GetRecords a second and shard while records come; AWS allows 5 to all readers."
    )
    kinesis_idle_reads_per_s: float = Field(1, gt=0, le=5, description="The same while none come.")
    dynamodb_reads_per_s: float = Field(
        4, gt=0, le=4, description="GetRecords a second and shard of a DynamoDB stream while records come; each costs."
    )
    dynamodb_idle_reads_per_s: float = Field(1, gt=0, le=4, description="The same while none come.")
    host_concurrency: int = Field(
        10, ge=1, le=1000, description="Environments of a hosted function without ReservedConcurrentExecutions."
    )
    host_idle_s: float = Field(
        300, gt=0, allow_inf_nan=False, description="Seconds after which an idle environment ends."
    )
    host_age_max_s: float = Field(
        14_400,
        gt=0,
        allow_inf_nan=False,
        description="Seconds after which an environment is started anew; for some earlier.",
    )
    host_concurrency_total: int = Field(
        1000, ge=1, le=10_000, description="Environments of all hosted functions that may run at once."
    )
    host_isolation: Literal["auto", "bubblewrap", "none"] = Field(
        "auto", description="Sandboxes of hosted functions: `auto` where bubblewrap works, `bubblewrap` always, `none`."
    )
    host_log_bytes_max: int = Field(
        50 * _MIB, ge=0, description="Bytes of log files kept for each hosted function, in five files; 0: none."
    )
    runtimes: str = Field(
        "", description="`RUNTIME=INTERPRETER[:CLIENT]`, separated by commas: what runs a Runtime of hosted functions."
    )
    host_directory: str | None = Field(
        None, description="Folder for the runtime client and the register of environments; default: beside the state."
    )
    function_aws_access_key_id: str | None = Field(None, description="AWS_ACCESS_KEY_ID that hosted functions get.")
    function_aws_secret_access_key: str | None = Field(
        None, repr=False, description="AWS_SECRET_ACCESS_KEY that hosted functions get."
    )
    function_aws_session_token: str | None = Field(
        None, repr=False, description="AWS_SESSION_TOKEN that hosted functions get."
    )
    function_aws_endpoint_url: str | None = Field(None, description="AWS_ENDPOINT_URL that hosted functions get.")
    strict: bool = Field(default=False, description="Refuses to start while a source, function or destination fails.")
    log_format: Literal["text", "json"] = Field("text", description="`text` for people, `json` for machines.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Nothing but what is given: `load_settings` has its environment as an argument."""
        return (init_settings,)

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("metrics_address")
    @classmethod
    def _address(cls, value: str) -> str:
        _host_port(value)
        return value

    @field_validator("api_address")
    @classmethod
    def _api_address(cls, value: str) -> str:
        if value != OFF:
            _host_port(value)
        return value

    @field_validator("endpoint_url", "function_aws_endpoint_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None:
            _check_url(value)
        return value

    @field_validator("state")
    @classmethod
    def _state(cls, value: str) -> str:
        if value != "memory://" and not value.startswith("sqlite:///") and not TABLE.fullmatch(value):
            msg = "it must be sqlite:///absolute/path, sqlite:///./relative/path, dynamodb://TABLE or memory://"
            raise ValueError(msg)
        return value

    @field_validator("blobs")
    @classmethod
    def _bucket(cls, value: str | None) -> str | None:
        if value is not None and (len(value) > BUCKET_MAX or not BUCKET.fullmatch(value)):
            msg = f"it must be s3://BUCKET or s3://BUCKET/PREFIX, of {BUCKET_MAX} characters at most"
            raise ValueError(msg)
        return value

    @field_validator("metrics_tags")
    @classmethod
    def _tags(cls, value: str) -> str:
        _tag_labels(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _interval(cls, given: dict[str, Any]) -> dict[str, Any]:
        is_table = TABLE.fullmatch(str(given.get("state", ""))) is not None
        return {"checkpoint_interval_s": 1.0, **given} if is_table else given

    @model_validator(mode="after")
    def _between(self) -> "Settings":
        problems = [*self._stopping(), *self._keeping()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _stopping(self) -> Iterator[str]:
        least = self.sqs_wait_s + DRAIN_MARGIN_S
        if self.shutdown_grace_s < least:
            yield (
                f"ESM_SHUTDOWN_GRACE_S={self.shutdown_grace_s:g} is too short: a receive that is under way ends after"
                f" up to ESM_SQS_WAIT_S={self.sqs_wait_s}; use {least} or more, or a shorter ESM_SQS_WAIT_S"
            )

    def _keeping(self) -> Iterator[str]:
        for name in ("state_connection", "blobs"):
            if getattr(self, name) is not None and not TABLE.fullmatch(self.state):
                yield f"{PREFIX}{name.upper()} is for ESM_STATE=dynamodb://TABLE alone: remove it"
        if self.blobs_connection is not None and self.blobs is None:
            yield "ESM_BLOBS_CONNECTION says how ESM_BLOBS is reached, and there is none: remove it"

    @model_validator(mode="after")
    def _api(self) -> "Settings":
        if (self.api_tls_cert_file is None) != (self.api_tls_key_file is None):
            msg = "ESM_API_TLS_CERT_FILE and ESM_API_TLS_KEY_FILE belong together: give both, or none"
            raise ValueError(msg)
        found = self.api_host_port
        if found is None or self.api_credentials_file is not None or self.api_insecure or _is_loopback(found[0]):
            return self
        msg = (
            f"ESM_API_ADDRESS={self.api_address} would let everybody who reaches it do everything: give"
            " ESM_API_CREDENTIALS_FILE, listen on 127.0.0.1, or say ESM_API_INSECURE=true"
        )
        raise ValueError(msg)

    @property
    def api_host_port(self) -> tuple[str, int] | None:
        """`api_address`, taken apart; None: the API is off."""
        return None if self.api_address == OFF else _host_port(self.api_address)

    @property
    def metrics_host_port(self) -> tuple[str, int]:
        """`metrics_address`, taken apart."""
        return _host_port(self.metrics_address)

    @property
    def tag_labels(self) -> dict[str, str]:
        """The metric label of each tag key of `metrics_tags`, in their order."""
        return _tag_labels(self.metrics_tags)

    @property
    def function_environment(self) -> dict[str, str]:
        """What hosted functions get of AWS: nothing, unless it was given for them."""
        given = {
            "AWS_ACCESS_KEY_ID": self.function_aws_access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.function_aws_secret_access_key,
            "AWS_SESSION_TOKEN": self.function_aws_session_token,
            "AWS_ENDPOINT_URL": self.function_aws_endpoint_url,
        }
        return {name: value for name, value in given.items() if value is not None}


def load_settings(environ: Mapping[str, str], overrides: Mapping[str, Any]) -> Settings:
    """The settings of `environ`, `overrides` (by field name) first. Raises: ConfigurationRefused with all problems."""
    assert overrides.keys() <= Settings.model_fields.keys(), "an override names a field"
    problems = [_unknown(name) for name in sorted(environ) if _is_unknown(name)]
    given: dict[str, Any] = {field: value for name, field in _fields().items() if (value := environ.get(name))}
    given |= overrides
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        problems += [_problem(detail, given) for detail in error.errors()]
        problems += _of_the_rest(error, given)
    if problems:
        raise ConfigurationRefused(problems)
    return settings


def settings_table() -> str:
    """The README's table."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default_factory or field.default is None else f"`{_shown(field.default)}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def _fields() -> dict[str, str]:
    return {PREFIX + field.upper(): field for field in Settings.model_fields}


def _of_the_rest(error: ValidationError, given: Mapping[str, Any]) -> list[Problem]:
    """Problems between settings, which pydantic does not look for while single ones are wrong."""
    wrong = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
    if not wrong or wrong & _COMPARED:
        return []
    try:
        Settings.model_validate({name: value for name, value in given.items() if name not in wrong})
    except ValidationError as between:
        return [_problem(detail, given) for detail in between.errors()]
    return []


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_unknown(name: str) -> bool:
    if not name.startswith(PREFIX) or _KUBERNETES.fullmatch(name):
        return False
    return name not in _fields()


def _unknown(name: str) -> Problem:
    near = difflib.get_close_matches(name.upper(), _fields(), n=1)
    remedy = f"did you mean {near[0]}?" if near else "remove it; the README lists the settings"
    return Problem("environment", name, None, f"no such setting: {remedy}")


def _problem(detail: Any, given: Mapping[str, Any]) -> Problem:  # noqa: ANN401 - pydantic's dict
    if not detail["loc"]:
        return Problem("environment", "", None, str(detail["msg"]).removeprefix("Value error, "))
    field = str(detail["loc"][0])
    info = Settings.model_fields[field]
    value = given.get(field)
    if not info.repr or "@" in str(value):
        value = "***"  # a secret, or a URL with a password
    text = str(detail["msg"]).removeprefix("Value error, ")
    return Problem("environment", PREFIX + field.upper(), value, f"{text}. {info.description}")


def _host_port(address: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[2]) > _PORT_MAX:
        msg = "it must be host:port, such as 127.0.0.1:9464 or [::1]:9464"
        raise ValueError(msg)
    return match[1].strip("[]"), int(match[2])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tag_labels(keys: str) -> dict[str, str]:
    """Label by key: what a label must not hold becomes `_`. Raises: ValueError."""
    labels: dict[str, str] = {}
    for key in [key.strip() for key in keys.split(",")] if keys else []:
        label = "tag_" + _NO_LABEL.sub("_", key)
        if not 1 <= len(key) <= TAG_KEY_MAX:
            msg = f"a tag key has 1 to {TAG_KEY_MAX} characters, {key[:20]!r} has {len(key)}"
            raise ValueError(msg)
        other = next((other for other, taken in labels.items() if taken == label), None)
        if other is not None:
            msg = f"{other!r} and {key!r} both become the label {label}: leave one of them out"
            raise ValueError(msg)
        labels[key] = label
    if len(labels) > TAGS_MAX:
        msg = f"{len(labels)} tag keys are too many: name at most {TAGS_MAX}"
        raise ValueError(msg)
    return labels


def _check_url(text: str) -> None:
    try:
        url = _URL.validate_python(text)
    except ValidationError:
        url = None
    if url is None or not url.host:
        msg = "it must be a URL: http://host:port or https://host:port"
        raise ValueError(msg)
    if url.username is not None or url.password is not None:
        msg = "it must be a URL without user and password"
        raise ValueError(msg)


def state_folder(settings: Settings) -> Path:
    """The folder beside the state in which the daemon may keep files of its own."""
    if settings.host_directory:
        return Path(settings.host_directory).absolute()
    if settings.state.startswith("sqlite:///"):
        path = settings.state.removeprefix("sqlite:///")
        return Path(path if path.startswith("./") else "/" + path.lstrip("/")).absolute().parent / "host"
    return Path("/tmp").absolute() / f"esm-{settings.worker_id}"  # noqa: S108 - made with mode 0700 by the host
